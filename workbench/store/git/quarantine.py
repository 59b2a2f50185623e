"""Reading the objects of a push before it is accepted: the hub's object database plus the quarantine's. Read-only.

In process, because a push waits for it: a ``git cat-file`` of its own would cost two milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pygit2

from workbench.domain.errors import NotFound, Refused
from workbench.domain.ids import ObjectId
from workbench.store.git.database import READ_LIMIT_BYTES
from workbench.store.git.objects import ObjectStore

_KINDS = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}


class QuarantineDatabase:
    """``Database`` over the objects of ``git_dir`` and of the folders that receive-pack put a push into."""

    def __init__(self, git_dir: Path, quarantine: Sequence[Path] = ()) -> None:
        self._both = pygit2.Odb(str(git_dir / "objects"))
        for folder in quarantine:
            self._both.add_disk_alternate(str(folder))

    def header(self, id: ObjectId) -> tuple[str, int] | None:
        try:
            kind, size = self._both.read_header(id)
        except KeyError:
            return None
        return _KINDS[int(kind)], int(size)

    def read(self, id: ObjectId) -> tuple[str, bytes]:
        found = self.header(id)
        if found is None:
            raise NotFound(f"no object {id} in this push", "push it again")
        if found[1] > READ_LIMIT_BYTES:
            raise Refused(f"object {id} is {found[1]} bytes; {READ_LIMIT_BYTES} can be read at once", "split it")
        return found[0], bytes(self._both.read(id)[1])

    def stream(self, id: ObjectId, out: Callable[[bytes], object]) -> int:
        data = self.read(id)[1]
        out(data)
        return len(data)

    def write(self, kind: str, data: bytes) -> ObjectId:
        raise Refused("a push in quarantine is read-only", "wait until it is accepted")

    def abbreviated(self, prefix: str) -> Sequence[ObjectId]:
        return []


class QuarantinedObjects:
    """What the hub's policy asks of a push (``workbench.hub.objects.PushedObjects``)."""

    def __init__(self, git_dir: Path, quarantine: Sequence[Path] = ()) -> None:
        self._hub = pygit2.Odb(str(git_dir / "objects"))
        self._database = QuarantineDatabase(git_dir, quarantine)
        self.view = ObjectStore(self._database)

    def header(self, id: ObjectId) -> tuple[str, int] | None:
        return self._database.header(id)

    def read(self, id: ObjectId) -> bytes:
        return self._database.read(id)[1]

    def known(self, id: ObjectId) -> bool:
        return pygit2.Oid(hex=id) in self._hub
