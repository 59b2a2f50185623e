"""What is still there after a power cut: a file's bytes, its name in a folder, and the names of new folders.

``fsync`` of a file makes its bytes durable, not its name. A name is durable once the folder that holds it is synced,
and the names of new folders once the folders above them are, up to the first that was there before.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TELLS_NS = 2_000_000_000
_MAX_KNOWN = 1000


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
    """Give a file or a folder that is synced its name, in the place of a file or an empty folder if there is one."""
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
        try:
            each.mkdir()
        except FileExistsError:
            if not each.is_dir():
                raise
        sync_folder(each.parent)  # also where it was there: whoever made it may not have come so far


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where its file system lets folders be synced."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def sync_folders(folders: Iterable[Path]) -> None:
    """One that is gone has no names."""
    for folder in folders:
        with suppress(FileNotFoundError, NotADirectoryError):
            sync_folder(folder)


def sync_tree(folder: Path) -> None:
    """All files and folders in a new folder, and its name."""
    for place, _, names in os.walk(folder, topdown=False):
        for path in (Path(place, name) for name in names):
            if path.is_file() and not path.is_symlink():
                _sync(path)
        sync_folder(Path(place))
    sync_folder(folder.parent)


class Folders:
    """Makes the names in folders durable, and passes over a folder that has not changed since it did so before.

    A folder that was synced already costs a flush of the disk all the same. Its time tells whether it has changed, from
    two seconds after the last change on: some file systems tell the time in seconds.
    """

    def __init__(self) -> None:
        self._unchanged: dict[Path, int] = {}

    def sync(self, folders: Iterable[Path]) -> None:
        """One that is gone has no names."""
        for folder in dict.fromkeys(folders):
            with suppress(FileNotFoundError, NotADirectoryError):
                changed_ns = folder.stat().st_mtime_ns
                if self._unchanged.get(folder) == changed_ns:
                    continue
                sync_folder(folder)
                if time.time_ns() - changed_ns > _TELLS_NS and len(self._unchanged) < _MAX_KNOWN:
                    self._unchanged[folder] = changed_ns


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
