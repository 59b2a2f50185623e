"""Locks between processes, and the rule by which a lock file that a killed git left behind is removed.

``writers.lock`` (exclusive) is held for a whole ledger change: it makes the queue fair; the compare-and-swap of the
ledger ref makes it right. ``refs.lock`` (shared) is held while a ref transaction of ours is open. Both are ``flock``s,
which the kernel drops when their owner dies. git's own lock files stay for ever when git is killed, and block
all writers.

A lock file is stale when, over 1.5 s, its inode and time did not change, no transaction of ours is open anywhere, and
no other git process works in this repository.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workbench.domain.errors import WorldError
from workbench.store.git.process import SERVICE_MARK

STALE_AFTER_S = 1.5
BUSY_FOR_S = 30.0

_FOLDER = "workbench"


def own_folder(git_dir: Path) -> Path:
    """Where the workbench keeps its few files in a Git directory: locks, the journal's tail, indexes."""
    folder = git_dir / _FOLDER
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def writers(git_dir: Path, *, patience_s: float = BUSY_FOR_S) -> Iterator[None]:
    """Alone among all ledger writers of this repository; WorldError when another one does not end."""
    with _flocked(own_folder(git_dir) / "writers.lock", fcntl.LOCK_EX, patience_s) as held:
        os.ftruncate(held, 0)
        os.pwrite(held, b"%d\n" % os.getpid(), 0)
        yield


@contextmanager
def transaction(git_dir: Path) -> Iterator[None]:
    """While a ref transaction of ours is open: nobody sweeps."""
    with _flocked(own_folder(git_dir) / "refs.lock", fcntl.LOCK_SH, BUSY_FOR_S):
        yield


@contextmanager
def _flocked(path: Path, how: int, patience_s: float) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise WorldError(f"cannot write in {path.parent}: {error.strerror}", "check its owner and the disk") from error
    try:
        waits = backoff(patience_s)
        while not _try(file, how):
            if next(waits, None) is None:
                owner = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
                raise WorldError(
                    f"another workbench process (pid {owner}) has held {path.name} for {patience_s:g} s",
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
    if not ripe or foreign_git(git_dir):
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
    places = {os.path.realpath(git_dir)}
    if git_dir.name == ".git":
        places.add(os.path.realpath(git_dir.parent))
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdecimal() and _works_in(name, places):
            found.append(int(name))
    return found


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


def _works_in(pid: str, places: set[str]) -> bool:
    try:
        with open(f"/proc/{pid}/comm") as file:
            if not file.read().startswith("git"):
                return False
        with open(f"/proc/{pid}/cmdline", "rb") as raw:
            words = raw.read().decode(errors="replace").split("\0")
        if SERVICE_MARK in words or _subcommand(words) in _NEVER_LOCK_REFS:
            return False
        folder = os.readlink(f"/proc/{pid}/cwd")
    except OSError:  # it ended, or it is another user's
        return False
    return folder in places or any(word.removeprefix("--git-dir=") in places for word in words)


@contextmanager
def maintaining(git_dir: Path) -> Iterator[bool]:
    """Whether we are the only maintenance; the other one is not waited for."""
    file = os.open(own_folder(git_dir) / "maintenance.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield _try(file, fcntl.LOCK_EX)
    finally:
        os.close(file)
