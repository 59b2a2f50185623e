"""Whether a job has filled more of its folder on disk than it may. Not here: what is in the files (``outbox``).

Counting a folder takes time, so it is done only when the disk has lost as much as the job may have. What was deleted
and is still open is not seen by counting; when the disk itself is nearly full, the job ends whoever filled it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from workbench.ports.sandbox import Limits

EVERY_S = 0.25
RESERVE_BYTES = 1 << 30  # that a job leaves free, or a twentieth of a small disk
_UNNOTICED_BYTES = 64 << 20


class DiskWatch:
    """Looks at ``folder``, a job's /out."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._next_s = 0.0
        before = os.statvfs(folder)
        self._free_bytes, self._free_files = before.f_bavail * before.f_frsize, before.f_favail
        self._reserve_bytes = min(RESERVE_BYTES, before.f_blocks * before.f_frsize // 20)

    def exceeded(self) -> bool:
        """Looks now and then; False in between."""
        if time.monotonic() < self._next_s:
            return False
        start_s = time.monotonic()
        found = os.statvfs(self._folder)
        free_bytes = found.f_bavail * found.f_frsize
        taken_bytes, taken_files = self._free_bytes - free_bytes, self._free_files - found.f_favail
        if free_bytes < self._reserve_bytes and taken_bytes > _UNNOTICED_BYTES:
            return True
        over = False
        if taken_bytes > self._limits.disk_bytes or taken_files > self._limits.disk_files:
            over = _is_over(self._folder, self._limits)
        now_s = time.monotonic()
        self._next_s = now_s + max(EVERY_S, 4 * (now_s - start_s))  # counting takes a fifth of our time at most
        return over


def _is_over(folder: Path, limits: Limits) -> bool:
    """Count until the end or a limit. Paths that are too long to be opened are of nobody who means well."""
    left_bytes, left_files = limits.disk_bytes, limits.disk_files
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for each in found:
                    left_files -= 1
                    left_bytes -= each.stat(follow_symlinks=False).st_blocks * 512
                    if left_bytes < 0 or left_files < 0:
                        return True
                    if each.is_dir(follow_symlinks=False):
                        waiting.append(each.path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # it has changed meanwhile
            continue
        except OSError:
            return True
    return False
