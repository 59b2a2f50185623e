"""Reading the objects of a push before it is accepted: the hub's object database plus the quarantine's. Read-only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pygit2

from workbench.domain.ids import ObjectId

_KINDS = {
    pygit2.enums.ObjectType.COMMIT: "commit",
    pygit2.enums.ObjectType.TREE: "tree",
    pygit2.enums.ObjectType.BLOB: "blob",
    pygit2.enums.ObjectType.TAG: "tag",
}


class QuarantinedObjects:
    """The objects of ``git_dir`` and of the folders that receive-pack put a push into."""

    def __init__(self, git_dir: Path, quarantine: Sequence[Path] = ()) -> None:
        self._hub = pygit2.Odb(str(git_dir / "objects"))
        self._both = pygit2.Odb(str(git_dir / "objects"))
        for folder in quarantine:
            self._both.add_disk_alternate(str(folder))

    def header(self, id: ObjectId) -> tuple[str, int] | None:
        try:
            kind, size = self._both.read_header(id)
        except KeyError:
            return None
        return _KINDS[pygit2.enums.ObjectType(kind)], int(size)

    def read(self, id: ObjectId) -> bytes:
        return bytes(self._both.read(id)[1])

    def known(self, id: ObjectId) -> bool:
        return pygit2.Oid(hex=id) in self._hub
