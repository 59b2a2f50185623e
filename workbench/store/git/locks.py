"""Locks between processes, and the rule by which a lock file that a killed git left behind is removed.

``writers.lock`` (exclusive) is held for a whole ledger change: it makes the queue fair; the compare-and-swap of the
ledger ref makes it right. ``refs.lock`` (shared) is held while a ref transaction of ours is open. Both are ``flock``s,
which the kernel drops when their owner dies. git's own lock files stay for ever when git is killed, and block
all writers.

A lock file is stale when, over 1.5 s, its inode and time did not change, no transaction of ours is open anywhere, and
no other git process works in this repository. Where that cannot be told of one (it is another user's), only a lock of
ten minutes' age is: no git holds one that long.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from workbench.domain.errors import WorldError
from workbench.store.git.process import SERVICE_MARK

STALE_AFTER_S = 1.5
STALE_IN_DOUBT_S = 600.0
BUSY_FOR_S = 30.0

_FOLDER = "workbench"


class Unwritable(WorldError):
    """A lock cannot be taken, because nothing can be written there: another user's repository, or read-only media."""


def own_folder(git_dir: Path) -> Path:
    """Where the workbench keeps its few files in a Git directory: locks, the journal's tail, indexes."""
    folder = git_dir / _FOLDER
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def writers(git_dir: Path, *, patience_s: float = BUSY_FOR_S) -> Iterator[None]:
    """Alone among all ledger writers of this repository; WorldError when another one does not end."""
    with _flocked(git_dir, "writers.lock", fcntl.LOCK_EX, patience_s) as held:
        os.ftruncate(held, 0)
        os.pwrite(held, b"%d\n" % os.getpid(), 0)
        yield


@contextmanager
def transaction(git_dir: Path) -> Iterator[None]:
    """While a ref transaction of ours is open: nobody sweeps."""
    with _flocked(git_dir, "refs.lock", fcntl.LOCK_SH, BUSY_FOR_S):
        yield


@contextmanager
def _flocked(git_dir: Path, name: str, how: int, patience_s: float) -> Iterator[int]:
    try:
        file = os.open(own_folder(git_dir) / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        kind = Unwritable if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else WorldError
        raise kind(f"cannot write in {git_dir}: {error.strerror}", "check its owner and the disk") from error
    try:
        waits = backoff(patience_s)
        while not _try(file, how):
            if next(waits, None) is None:
                owner = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
                raise WorldError(
                    f"another workbench process (pid {owner}) has held {name} for {patience_s:g} s",
                    "wait for it, or end it if it is stopped",
                )
        yield file
    finally:
        os.close(file)


def _try(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def backoff(patience_s: float, *, first_s: float = 0.0005, most_s: float = 0.05) -> Iterator[float]:
    """Sleep a little longer each time, with jitter, until ``patience_s`` have gone; yields the seconds waited."""
    start = time.monotonic()
    delay = first_s
    while (gone := time.monotonic() - start) < patience_s:
        time.sleep(delay * random.uniform(0.5, 1.5))
        delay = min(delay * 1.5, most_s)
        yield gone


@dataclass(frozen=True)
class Sighting:
    """A lock file as it was seen at one moment."""

    path: Path
    inode: int
    mtime_ns: int
    seen_s: float  # monotonic

    @classmethod
    def of(cls, path: Path) -> Sighting | None:
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(path, status.st_ino, status.st_mtime_ns, time.monotonic())

    def unchanged(self) -> bool:
        now = Sighting.of(self.path)
        return now is not None and (now.inode, now.mtime_ns) == (self.inode, self.mtime_ns)


def lock_files(git_dir: Path) -> list[Path]:
    """Every lock of a ref that exists now."""
    found = [path for name in ("packed-refs.lock", "HEAD.lock") if (path := git_dir / name).exists()]
    for folder, _, files in os.walk(git_dir / "refs"):
        found.extend(Path(folder, name) for name in files if name.endswith(".lock"))
    return sorted(found)


def remove_stale(git_dir: Path, sightings: list[Sighting]) -> list[Path]:
    """Remove those locks that are stale by the rule above; what was removed. Does not wait."""
    ripe = [s for s in sightings if time.monotonic() - s.seen_s >= STALE_AFTER_S and s.unchanged()]
    others = set(_other_gits(git_dir).values()) if ripe else set()
    if None in others:
        born_ns = time.time_ns() - round(STALE_IN_DOUBT_S * 1e9)
        ripe = [s for s in ripe if s.mtime_ns <= born_ns]
    if not ripe or True in others:
        return []
    file = os.open(own_folder(git_dir) / "refs.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _try(file, fcntl.LOCK_EX):
            return []
        removed = []
        for sighting in ripe:
            if sighting.unchanged():
                sighting.path.unlink(missing_ok=True)
                removed.append(sighting.path)
        return removed
    finally:
        os.close(file)


def foreign_git(git_dir: Path) -> list[int]:
    """Process ids of git programs that work in this repository and are not idle services of ours.

    Where the system does not show its processes (no /proc), none are known.
    """
    return [pid for pid, works_here in _other_gits(git_dir).items() if works_here]


def _other_gits(git_dir: Path) -> dict[int, bool | None]:
    """Git programs that may move refs, and whether they work in this repository; None where that cannot be told."""
    place = _common(os.fspath(git_dir))
    names = os.listdir("/proc") if os.path.isdir("/proc") else []
    return {int(name): _works_in(name, place) for name in names if name.isdecimal() and _may_move_refs(name)}


# In a hub refs are moved by our hook, not by receive-pack, which waits for it; the others read, or write objects alone.
_NEVER_LOCK_REFS = frozenset(
    {"receive-pack", "unpack-objects", "index-pack", "rev-list", "upload-pack", "pack-objects", "cat-file", "fsck"}
)


def _subcommand(words: list[str]) -> str:
    """``index-pack`` of ``git -c x=y index-pack --stdin``."""
    name = os.path.basename(words[0])
    if name.startswith("git-"):
        return name.removeprefix("git-")
    rest = iter(words[1:])
    for word in rest:
        if word in ("-c", "-C", "--git-dir", "--work-tree", "--namespace", "--exec-path"):
            next(rest, "")
        elif not word.startswith("-"):
            return word
    return ""


def _may_move_refs(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/comm") as file:
            if not file.read().startswith("git"):
                return False
        words = _words(pid, "cmdline")
    except OSError:  # it has ended
        return False
    return SERVICE_MARK not in words and _subcommand(words) not in _NEVER_LOCK_REFS


def _works_in(pid: str, place: str) -> bool | None:
    """By what it was told, and by where it stands: git looks around there when it was told nothing."""
    try:
        folder = os.readlink(f"/proc/{pid}/cwd")
        words = _words(pid, "cmdline")
        told = [word.removeprefix("GIT_DIR=") for word in _words(pid, "environ") if word.startswith("GIT_DIR=")]
    except PermissionError:
        return None if _can_write(pid, place) else False
    except OSError:  # it has ended
        return False
    told += [word.removeprefix("--git-dir=") for word in words if word.startswith("--git-dir=")]
    told += [after for word, after in pairwise(words) if word == "--git-dir"]
    seen = [os.path.join(folder, path) for path in (*words, *told)]
    if place == _common(_around(folder)) or any(place == _common(path) for path in seen if os.path.isdir(path)):
        return True
    moved_since = any(not os.path.isabs(path) and not os.path.exists(os.path.join(folder, path)) for path in told)
    return None if moved_since else False


def _can_write(pid: str, place: str) -> bool:
    """Whether a process of another user may write there at all."""
    try:
        user, refs = os.stat(f"/proc/{pid}").st_uid, os.stat(os.path.join(place, "refs"))
    except OSError:
        return False
    return user in (0, refs.st_uid) or bool(refs.st_mode & 0o022)


def _words(pid: str, name: str) -> list[str]:
    with open(f"/proc/{pid}/{name}", "rb") as raw:
        return [os.fsdecode(word) for word in raw.read().split(b"\0")]


def _around(folder: str) -> str:
    """The Git directory that git finds from a folder; the root where there is none."""
    while folder != os.path.dirname(folder):
        dot_git = os.path.join(folder, ".git")
        if os.path.isdir(dot_git):
            return dot_git
        if os.path.isfile(dot_git):  # of a linked work tree, or a Git directory that was put elsewhere
            return os.path.join(folder, _line(dot_git).removeprefix("gitdir: "))
        if os.path.isfile(os.path.join(folder, "HEAD")) and os.path.isdir(os.path.join(folder, "objects")):
            return folder
        folder = os.path.dirname(folder)
    return folder


def _common(git_dir: str) -> str:
    """Where the refs are: of a linked work tree those of the main one."""
    git_dir = os.path.realpath(git_dir)
    pointer = os.path.join(git_dir, "commondir")
    return os.path.realpath(os.path.join(git_dir, _line(pointer))) if os.path.isfile(pointer) else git_dir


def _line(path: str) -> str:
    """The one line of a small file; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read(4096)).strip()
    except OSError:
        return ""


@contextmanager
def maintaining(git_dir: Path) -> Iterator[bool]:
    """Whether we are the only maintenance; the other one is not waited for."""
    file = os.open(own_folder(git_dir) / "maintenance.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield _try(file, fcntl.LOCK_EX)
    finally:
        os.close(file)
