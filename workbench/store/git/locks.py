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

import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from workbench.store.git.process import SERVICE_MARK
from workbench.system import durable, locks

STALE_AFTER_S = 1.5
STALE_IN_DOUBT_S = 600.0
BUSY_FOR_S = 30.0

_FOLDER = "workbench"


def own_folder(git_dir: Path) -> Path:
    """Where the workbench keeps its few files in a Git directory: locks, the journal's tail, indexes."""
    folder = git_dir / _FOLDER
    try:
        if not folder.is_dir():
            durable.make_folder(folder)
    except OSError as error:
        raise locks.cannot_write(folder, error) from error
    return folder


def writers(git_dir: Path) -> AbstractContextManager[int]:
    """Alone among all ledger writers of this repository; Busy when another one does not end."""
    return locks.held(own_folder(git_dir) / "writers.lock", patience_s=BUSY_FOR_S)


def transaction(git_dir: Path) -> AbstractContextManager[int]:
    """While a ref transaction of ours is open: nobody sweeps."""
    return locks.held(own_folder(git_dir) / "refs.lock", shared=True, patience_s=BUSY_FOR_S)


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
    try:
        with locks.held(own_folder(git_dir) / "refs.lock"):
            removed = []
            for sighting in ripe:
                if sighting.unchanged():
                    sighting.path.unlink(missing_ok=True)
                    removed.append(sighting.path)
            return removed
    except locks.Busy:
        return []


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


def maintaining(git_dir: Path) -> AbstractContextManager[int]:
    """Alone as the maintenance of this repository; Busy at once when there is another."""
    return locks.held(own_folder(git_dir) / "maintenance.lock")
