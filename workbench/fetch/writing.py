"""Writing strangers' files below one folder: by openat, never through a link, never over what is there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FolderWriter:
    """Creates files below ``root``. Paths must have passed ``names.check``; every component is opened by itself."""

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, _FOLDER)
        self._at = ""  # the folder that was used last stays open: archives list files folder by folder
        self._open = -1
        self._written: list[str] = []

    def __enter__(self) -> FolderWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        os.close(self._root)

    def write(self, path: str, chunks: Iterable[bytes]) -> int:
        """Bytes written. A failure while writing leaves no file."""
        folder, _, name = path.rpartition("/")
        at = self._enter(folder)
        handle = os.open(name, _FILE, 0o644, dir_fd=at)
        size = 0
        try:
            with os.fdopen(handle, "wb") as out:
                for chunk in chunks:
                    size += out.write(chunk)
        except BaseException:
            os.unlink(name, dir_fd=at)
            raise
        self._written.append(path)
        return size

    def forget(self) -> None:
        """Remove every file that was written."""
        for path in self._written:
            folder, _, name = path.rpartition("/")
            os.unlink(name, dir_fd=self._enter(folder))
        self._written.clear()

    def _enter(self, folder: str) -> int:
        if self._open >= 0 and folder == self._at:
            return self._open
        self._leave()
        current = os.dup(self._root)
        try:
            for part in folder.split("/") if folder else ():
                if part in ("..", "."):
                    raise AssertionError(f"unchecked path component {part!r}")
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=current)
                below = os.open(part, _FOLDER, dir_fd=current)
                os.close(current)
                current = below
        except BaseException:
            os.close(current)
            raise
        self._at, self._open = folder, current
        return current

    def _leave(self) -> None:
        if self._open >= 0:
            os.close(self._open)
            self._open = -1
