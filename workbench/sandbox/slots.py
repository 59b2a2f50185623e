"""Slots: a job has a user id of its own, so that one job's processes are neither counted nor seen with another's.

A slot is held by a lock on a file, across all processes of this user on this machine, and falls free when its holder
dies. Not here: what runs in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from workbench.domain.errors import WorldError

FIRST_UID = 61000  # 61000-61183 is left free by systemd's ranges
NUM_SLOTS = 64
WAIT_S = 300.0


@contextlib.contextmanager
def slot() -> Iterator[int]:
    """A free slot's number, held until the block ends; waits for one when all are taken."""
    folder = _folder()
    deadline = time.monotonic() + WAIT_S
    start = os.getpid() % NUM_SLOTS  # processes look in different places first
    while True:
        for offset in range(NUM_SLOTS):
            number = (start + offset) % NUM_SLOTS
            fd = os.open(folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                continue
            try:
                yield number
            finally:
                os.close(fd)
            return
        if time.monotonic() > deadline:
            raise WorldError(
                f"all {NUM_SLOTS} sandbox slots were busy for {WAIT_S:.0f} s", "try again with fewer workers"
            )
        time.sleep(0.02)


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"workbench-sandbox-slots-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise WorldError(f"{folder} is not a private folder of this user", f"remove it: rm -rf {folder}")
    return folder
