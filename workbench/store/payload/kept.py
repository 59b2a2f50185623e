"""A file of the cache as the system shows it: is it what it was when it was verified? Not here: what is kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from workbench.domain.manifest import FileEntry

MTIME_NS = 1_000_000_000  # of every file that is whole: writing to it changes that


def untouched(status: os.stat_result, size: int) -> bool:
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_size == size
        and status.st_mtime_ns == MTIME_NS
        and not status.st_mode & 0o222
    )


def holds_no_more_than(target: Path, files: Sequence[FileEntry]) -> bool:
    """Whether nobody has put anything among the files: they are read-only, but not for who owns them."""
    room = {"": 0}
    for entry in files:
        parts = entry.path.split("/")
        for depth in range(len(parts)):
            folder = "/".join(parts[:depth])
            room.setdefault(folder, 0)
        room["/".join(parts[:-1])] += 1
    for folder in room:
        if folder:
            room[folder.rpartition("/")[0]] += 1
    try:
        return all(
            not (target / folder).is_symlink() and len(os.listdir(target / folder)) <= most
            for folder, most in room.items()
        )
    except OSError:
        return False


def link(source: Path, target: Path) -> None:
    """A hard link; a file that has too many of them (65,000 on ext4) is copied."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        target.chmod(0o444)
        os.utime(target, ns=(time.time_ns(), MTIME_NS))


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours whose folders may be read-only."""
    for parent, folders, _ in os.walk(folder):
        for name in (".", *folders):
            with suppress(OSError):
                os.chmod(os.path.join(parent, name), 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def sha256_of(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return ""
    with open(fd, "rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_of_this_boot(status: os.stat_result, booted: float) -> bool:
    """Whether a file was written since the machine started. One from the future was not: the clock has gone back, as
    that of a machine without a battery does at each start."""
    return booted <= status.st_ctime <= _now() + 1


def _now() -> float:
    return time.time()


def boot_time() -> float:
    """When the machine started, in Unix time."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
