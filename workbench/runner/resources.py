"""Files of ``agents/`` as ``importlib.resources`` hands them to code: read where they are kept, never written."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from importlib.resources.abc import Traversable, TraversableResources
from typing import Any


class Resources(TraversableResources):
    """The resources of the package whose folder is ``path``."""

    def __init__(self, files: Mapping[str, bytes], path: str) -> None:
        self._root = ResourcePath(files, path)

    def files(self) -> ResourcePath:
        return self._root


class ResourcePath(Traversable):
    """A file or folder, or a path at which nothing stands. Links are none of these."""

    def __init__(self, files: Mapping[str, bytes], path: str) -> None:
        self._files, self._path = files, path

    @property
    def name(self) -> str:
        return self._path.rpartition("/")[2]

    def is_dir(self) -> bool:
        return not self._path or any(path.startswith(f"{self._path}/") for path in self._files)

    def is_file(self) -> bool:
        return self._path in self._files

    def iterdir(self) -> Iterator[ResourcePath]:
        if not self.is_dir():
            raise NotADirectoryError(self._path)
        prefix = f"{self._path}/".lstrip("/")
        names = (path.removeprefix(prefix).partition("/")[0] for path in self._files if path.startswith(prefix))
        for name in dict.fromkeys(names):
            yield ResourcePath(self._files, prefix + name)

    def joinpath(self, *descendants: Any) -> ResourcePath:
        names = [name for name in "/".join(map(str, descendants)).split("/") if name not in ("", ".")]
        return ResourcePath(self._files, "/".join([self._path, *names]).lstrip("/"))

    def read_bytes(self) -> bytes:
        if not self.is_file():
            raise (IsADirectoryError if self.is_dir() else FileNotFoundError)(self._path)
        return self._files[self._path]

    def read_text(self, encoding: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8")

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode not in ("r", "rb"):
            raise PermissionError(f"{self._path} belongs to a commit: it can be read only")
        stream = io.BytesIO(self.read_bytes())
        return stream if mode == "rb" else io.TextIOWrapper(stream, *args, **{"encoding": "utf-8", **kwargs})
