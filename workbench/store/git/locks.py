"""Turns among our writers; and git's lock files: whose they are, and which are removed.

git's lock file of a ref stays for ever when that git is killed, and keeps all writers from the ref. At once we remove
only what a git of ours left. Before one of our gits takes locks, a note names them: ``<git directory>/workbench/locks/
<number>``, on disk, and held (``flock``) by us and by that git. A note that nobody holds is of a git that has ended: a
lock file that it names, and that was made then, was left behind, unless a note that somebody holds names it as well.

Every other lock file is somebody else's. One of ten minutes' age is removed, for no git holds one that long; of a
younger one it is said which it is, how old, and what to do. Nobody guesses which gits are at work.
"""

from __future__ import annotations

import os
import shlex
import time
import weakref
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from workbench.domain.errors import WorldError
from workbench.system import durable, locks

OLD_S = 600.0
BUSY_FOR_S = 30.0

_FOLDER = "workbench"
_NOTES = "locks"
_MAX_NOTES = 10_000
_SECTOR = 512  # a note is written over in place: it grows by whole sectors, and never shrinks
_NOTE_MAX = 4 << 20
_TAKING_NS = (-20_000_000, 60_000_000_000)  # from naming locks until git has them; file times lag by a tick


def own_folder(git_dir: Path) -> Path:
    """Where the workbench keeps its few files in a Git directory: locks, the journal's tail, indexes."""
    return _made(git_dir / _FOLDER)


def _made(folder: Path) -> Path:
    try:
        if not folder.is_dir():
            durable.make_folder(folder)
    except OSError as error:
        raise locks.cannot_write(folder, error) from error
    return folder


def writers(git_dir: Path) -> AbstractContextManager[int]:
    """Alone among all ledger writers of this repository; Busy when another one does not end."""
    return locks.held(own_folder(git_dir) / "writers.lock", patience_s=BUSY_FOR_S)


def maintaining(git_dir: Path) -> AbstractContextManager[int]:
    """Alone as the maintenance of this repository; Busy at once when there is another."""
    return locks.held(own_folder(git_dir) / "maintenance.lock")


@dataclass(frozen=True)
class Sighting:
    """A lock file as it was seen at one moment."""

    path: Path
    inode: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Sighting | None:
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(path, status.st_ino, status.st_mtime_ns)

    def unchanged(self) -> bool:
        return Sighting.of(self.path) == self

    @property
    def age_s(self) -> float:
        return max(0.0, (time.time_ns() - self.mtime_ns) / 1e9)


def lock_files(git_dir: Path) -> list[Path]:
    """Every lock file that keeps somebody from moving refs, from packing them, or from our settings."""
    names = ("HEAD.lock", "packed-refs.lock", "packed-refs.new", "config.lock", "objects/pack/multi-pack-index.lock")
    found = [path for name in names if (path := git_dir / name).exists()]
    for folder, _, files in os.walk(git_dir / "refs"):
        found.extend(Path(folder, name) for name in files if name.endswith(".lock"))
    return sorted(found)


def removal(lock: Path) -> str:
    """The command that removes it."""
    return f"rm -f {shlex.join(map(str, _together(lock)))}"


def _together(lock: Path) -> list[Path]:
    """Whoever holds the lock of ``packed-refs`` makes another file, and stops where that one is there already."""
    return [lock.with_suffix(".new"), lock] if lock.name == "packed-refs.lock" else [lock]


def remove_left(git_dir: Path, paths: Iterable[Path] = ()) -> list[Path]:
    """Remove lock files by the rule above: those that our gits left, and of ``paths`` also the old ones; which. Does
    not wait, and removes nothing where nothing can be written."""
    with suppress(locks.Busy, locks.Unwritable), locks.held(own_folder(git_dir) / "refs.lock"), ExitStack() as stack:
        notes = [_Note.opened(path, git_dir, stack) for path in _notes(git_dir)]
        left = [note for note in notes if not note.is_held and note.read().paths]
        named = {path for note in left for path in note.read().paths}
        # Seen before the notes in use are read: by now whoever made one of these has named it.
        seen = [sighting for path in {*paths, *named} if (sighting := Sighting.of(path))]
        in_use = {path for note in notes if note.is_held for path in note.read().paths}
        removed = []
        for sighting in seen:
            is_left = sighting.age_s >= OLD_S or any(note.read().claims(sighting) for note in left)
            if is_left and sighting.path not in in_use and sighting.unchanged():
                for path in _together(sighting.path):
                    path.unlink(missing_ok=True)
                removed.append(sighting.path)
        for note in left:
            if not any(path.exists() for path in note.read().paths):
                _write(note.fd, b"")
        return sorted(removed)
    return []


class LockNote:
    """Names the locks that one git of ours may take. That git is started with the descriptor ``fd``, and lives no
    longer than we do. A note that is closed before it was cleared says that its git was killed."""

    def __init__(self, git_dir: Path) -> None:
        self._place = _made(own_folder(git_dir) / _NOTES)
        remove_left(git_dir)
        self.fd = _taken(self._place)
        self._close = weakref.finalize(self, os.close, self.fd)

    def name(self, names: Sequence[str]) -> None:
        """On disk when it returns. The lock of ``refs/heads/main`` is ``refs/heads/main.lock``."""
        try:
            _write(self.fd, "\n".join((str(time.time_ns()), *names)).encode())
            os.fdatasync(self.fd)
        except OSError as error:
            raise locks.cannot_write(self._place, error) from error

    def clear(self) -> None:
        """The git has let go of its locks."""
        _write(self.fd, b"")

    def close(self) -> None:
        self._close()


@dataclass(frozen=True)
class _Named:
    time_ns: int
    paths: frozenset[Path]

    def claims(self, lock: Sighting) -> bool:
        first, last = _TAKING_NS
        return lock.path in self.paths and first <= lock.mtime_ns - self.time_ns <= last


@dataclass(frozen=True)
class _Note:
    """A note as others see it. One that nobody held is held by us until the stack is left."""

    fd: int
    is_held: bool
    git_dir: Path

    @classmethod
    def opened(cls, path: Path, git_dir: Path, stack: ExitStack) -> _Note:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        stack.callback(os.close, fd)
        return cls(fd, not locks.take(fd), git_dir)

    def read(self) -> _Named:
        time_ns, *names = os.pread(self.fd, _NOTE_MAX, 0).decode("utf-8", "replace").split() or ["0"]
        paths = frozenset(self.git_dir / f"{name}.lock" for name in names)
        return _Named(int(time_ns) if time_ns.isdecimal() else 0, paths)


def _write(fd: int, text: bytes) -> None:
    sectors = -(-len(text) // _SECTOR) or 1
    os.pwrite(fd, text.ljust(max(sectors * _SECTOR, os.fstat(fd).st_size), b"\n"), 0)


def _taken(folder: Path) -> int:
    """The descriptor of the first note that nobody holds and that names nothing; a new one is on disk."""
    for number in range(_MAX_NOTES):
        path = folder / str(number)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise locks.cannot_write(path, error) from error
        try:
            if locks.take(fd) and not os.pread(fd, _SECTOR, 0).strip():
                if os.fstat(fd).st_size == 0:
                    _write(fd, b"")
                    os.fsync(fd)
                    durable.sync_folder(folder)
                return fd
        except OSError as error:
            os.close(fd)
            raise locks.cannot_write(path, error) from error
        os.close(fd)
    raise WorldError(f"{folder} holds {_MAX_NOTES} notes of locks in use", "end some of the programs that write here")


def _notes(git_dir: Path) -> list[Path]:
    return sorted((git_dir / _FOLDER / _NOTES).glob("[0-9]*"))
