"""What is still there after a power cut: a file's bytes, its name in a folder, and the names of new folders.

``fsync`` of a file makes its bytes durable, not its name. A name is durable once the folder that holds it is synced,
and the names of new folders once the folders above them are, up to the first that was there before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def write_file(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """The whole file or the one before. ``mode``: its permissions; the umask's by default."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with open(fresh, "xb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        rename(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def rename(source: Path, target: Path) -> None:
    """Give a file that is synced its name, in the place of another one if there is one, from the same folder."""
    source.replace(target)
    sync_folder(target.parent)


def write_all(file: int, data: bytes) -> None:
    """A write may take less than it is given."""
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def make_folder(folder: Path) -> None:
    """The folder, and those above it that are missing."""
    missing = [folder]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    for each in reversed(missing):
        with suppress(FileExistsError):
            each.mkdir()
        sync_folder(each.parent)  # also where it was there: whoever made it may not have come so far


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_folders(folders: Iterable[Path]) -> None:
    """Each once; one that is gone has no names."""
    for folder in sorted(set(folders)):
        with suppress(FileNotFoundError, NotADirectoryError):
            sync_folder(folder)
