"""One lock between processes: ``flock`` on a file. The kernel drops it when its owner dies, however it dies.

Every wait is bounded, and a little longer each time. Not here: lock files that stay when their owner is killed, as
git's do (``store.git.locks``).
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workbench.domain.errors import WorldError

FIRST_S, MOST_S = 0.0005, 0.05  # of the sleeps between two tries


class Busy(WorldError):
    """Another process has held a lock for longer than we wait."""


class Unwritable(WorldError):
    """A lock file cannot be made: another user's repository, or read-only media."""


@contextmanager
def held(path: Path, *, shared: bool = False, patience_s: float = 0.0, mode: int = 0o644) -> Iterator[int]:
    """``hold`` for the time of a block; the descriptor."""
    file = hold(path, shared=shared, patience_s=patience_s, mode=mode)
    try:
        yield file
    finally:
        os.close(file)


def hold(path: Path, *, shared: bool = False, patience_s: float = 0.0, mode: int = 0o644) -> int:
    """Take the lock of a file, which is made if it is missing; a descriptor that holds it until it is closed.

    Busy when another process does not let go of it in time. Whoever has it alone writes his process id into it; a
    shared lock is held by any number of processes, while nobody has it alone.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        waits = backoff(patience_s)
        while not take(file, shared=shared):
            if next(waits, None) is None:
                owner = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
                raise Busy(
                    f"another process (pid {owner}) has held {path} for {patience_s:g} s",
                    "wait for it, or end it if it is stopped",
                )
        if not shared:
            with suppress(OSError):  # on a full disk the lock is one all the same
                os.ftruncate(file, 0)
                os.pwrite(file, b"%d\n" % os.getpid(), 0)
    except BaseException:
        os.close(file)
        raise
    return file


def cannot_write(path: Path, error: OSError) -> WorldError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WorldError(f"cannot write {path}: the disk is full", "free some space and run the command again")
    kind = Unwritable if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else WorldError
    return kind(f"cannot write {path}: {error.strerror}", "check its owner and the disk")


def take(file: int, *, shared: bool = False) -> bool:
    """Lock an open file until it is closed; False where another process holds it."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: str | Path) -> bool:
    """Whether a process holds the lock of this file alone."""
    try:
        with open(path, "rb") as file:
            return not take(file.fileno(), shared=True)
    except FileNotFoundError:
        return False


def backoff(patience_s: float) -> Iterator[float]:
    """Sleep a little longer each time, with jitter, until ``patience_s`` have gone; yields the seconds waited."""
    start = time.monotonic()
    delay = FIRST_S
    while (gone := time.monotonic() - start) < patience_s:
        time.sleep(delay * random.uniform(0.5, 1.5))
        delay = min(delay * 1.5, MOST_S)
        yield gone
