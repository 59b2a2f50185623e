"""Slots: a job has a user id of its own, so that one job's processes are neither counted nor seen with another's.

A slot is held by a lock on a file, across all processes of this user on this machine, and falls free when its holder
dies. The file holds a byte while the slot is in use: one that is free and not empty had a holder that was killed, and
what that one had begun to build is ended by whoever comes next. Not here: what runs in it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from workbench.domain.errors import WorldError
from workbench.system import locks

FIRST_UID = 61000  # 61000-61183 is left free by systemd's ranges
NUM_SLOTS = 64
WAIT_S = 300.0
END_S = 10.0  # for the remains of a killed holder to end
_PLACES = ("/tmp", "/var/tmp")


def mark(number: int) -> str:
    """What the command line of every builder of a jail in this slot has in it, and of no slot by another folder."""
    folder = _folder().stat()
    return f"WORKBENCH_SLOT_{folder.st_dev}_{folder.st_ino}_{number}"


@contextlib.contextmanager
def slot() -> Iterator[int]:
    """A free slot's number, held until the block ends; waits for one when all are taken."""
    folder = _folder()
    deadline = time.monotonic() + WAIT_S
    start = os.getpid() % NUM_SLOTS  # processes look in different places first
    while True:
        for offset in range(NUM_SLOTS):
            number = (start + offset) % NUM_SLOTS
            fd = _taken(folder / str(number), number)
            if fd is None:
                continue
            try:
                os.pwrite(fd, b"1", 0)
                yield number
                os.ftruncate(fd, 0)
            finally:
                os.close(fd)
            return
        if time.monotonic() > deadline:
            raise WorldError(
                f"all {NUM_SLOTS} sandbox slots were busy for {WAIT_S:.0f} s", "try again with fewer workers"
            )
        time.sleep(0.02)


def sweep() -> None:
    """End what holders that were killed left in any slot."""
    folder = _folder()
    for path in folder.iterdir():
        if path.name.isdigit() and path.stat().st_size and (fd := _taken(path, int(path.name))) is not None:
            os.close(fd)


def _taken(path: Path, number: int) -> int | None:
    """A descriptor with the slot's lock, clean; None where another process holds it or its remains do not end."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if not locks.take(fd):
        os.close(fd)
        return None
    if os.fstat(fd).st_size:
        if not _end_builders(number):
            os.close(fd)
            return None
        os.ftruncate(fd, 0)
    return fd


def _end_builders(number: int) -> bool:
    """Kill every builder of a jail in a slot that nobody holds: one may wait for ever for the word of its parent, which
    was ended with our predecessor. False: some are still there after ``END_S``.

    Done when two looks in a row find none. In the first, one may have begun another after the list was read, and then
    have been ended by the kernel, with its launcher, before its own turn came; that other one waits, and is seen."""
    wanted = mark(number).encode()
    deadline = time.monotonic() + END_S
    empty_looks = 0
    while empty_looks < 2:
        found = {_end_builder(process, wanted) for process in Path("/proc").iterdir() if process.name.isdigit()}
        if time.monotonic() > deadline:
            return True not in found
        empty_looks = 0 if found - {False} else empty_looks + 1
    return True


def _end_builder(process: Path, wanted: bytes) -> bool | None:
    """Kill one process if it is a builder; whether it was. None: that cannot be said yet.

    Between fork and exec it still holds the slot's lock. Within exec, when the lock has gone, it has a program and no
    command line for a moment; a zombie and a thread of the kernel have neither."""
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(int(process.name))
        try:
            line = (process / "cmdline").read_bytes()
            if wanted in line.split(b"\0"):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                return True
            return None if not line and os.readlink(process / "exe") else False
        finally:
            os.close(fd)
    return False


def _folder() -> Path:
    """The same for all processes of this user, wherever their TMPDIR is: a stage has one of its own for each step."""
    place = next((place for place in _PLACES if os.access(place, os.W_OK)), tempfile.gettempdir())
    folder = Path(place) / f"workbench-sandbox-slots-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise WorldError(f"{folder} is not a private folder of this user", f"remove it: rm -rf {folder}")
    return folder
