"""Files of a Git tree as ``importlib.resources`` hands them to code: read from the objects, never written anywhere."""

from __future__ import annotations

import io
from collections.abc import Iterator
from importlib.resources.abc import Traversable, TraversableResources
from typing import Any

from workbench.domain.ids import ObjectId
from workbench.ports.store import Objects

_FOLDER = 0o40000
_FILES = (0o100644, 0o100755)


class TreeResources(TraversableResources):
    """The resources of one package; ``tree`` is its folder and ``name`` what messages call it."""

    def __init__(self, objects: Objects, tree: ObjectId, name: str) -> None:
        self._root = TreePath(objects, tree, _FOLDER, name)

    def files(self) -> TreePath:
        return self._root


class TreePath(Traversable):
    """A file or folder of a tree, or a name at which nothing stands (mode 0). Links are neither."""

    def __init__(self, objects: Objects, id: ObjectId, mode: int, name: str) -> None:
        self._objects, self._id, self._mode, self._name = objects, id, mode, name

    @property
    def name(self) -> str:
        return self._name.rpartition("/")[2]

    def is_dir(self) -> bool:
        return self._mode == _FOLDER

    def is_file(self) -> bool:
        return self._mode in _FILES

    def iterdir(self) -> Iterator[TreePath]:
        if not self.is_dir():
            raise NotADirectoryError(self._name)
        for entry in self._objects.list(self._id):
            yield TreePath(self._objects, entry.id, entry.mode, f"{self._name}/{entry.path}".lstrip("/"))

    def joinpath(self, *descendants: Any) -> TreePath:
        found = self
        for name in "/".join(map(str, descendants)).split("/"):
            if name not in ("", "."):
                found = found._child(name)
        return found

    def _child(self, name: str) -> TreePath:
        entry = self._objects.entry(self._id, name) if self.is_dir() else None
        where = f"{self._name}/{name}".lstrip("/")
        return TreePath(self._objects, entry.id if entry else self._id, entry.mode if entry else 0, where)

    def read_bytes(self) -> bytes:
        if not self.is_file():
            raise (IsADirectoryError if self.is_dir() else FileNotFoundError)(self._name)
        return self._objects.read_blob(self._id)

    def read_text(self, encoding: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8")

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode not in ("r", "rb"):
            raise PermissionError(f"{self._name} is an object of Git: it can be read only")
        stream = io.BytesIO(self.read_bytes())
        return stream if mode == "rb" else io.TextIOWrapper(stream, *args, **{"encoding": "utf-8", **kwargs})
