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
    """``Database`` over the objects of ``git_dir`` and of the folders that receive-pack put a push into.

    The push's own are looked at first: most questions are about them, and a hub may have many packs."""

    def __init__(self, git_dir: Path, quarantine: Sequence[Path] = ()) -> None:
        self._hub = pygit2.Odb(str(git_dir / "objects"))
        self._all = [*(pygit2.Odb(str(folder)) for folder in quarantine), self._hub]

    def header(self, id: ObjectId) -> tuple[str, int] | None:
        found = self._find(id)
        return found[1:] if found else None

    def known(self, id: ObjectId) -> bool:
        """Whether the hub itself has it."""
        return pygit2.Oid(hex=id) in self._hub

    def read(self, id: ObjectId) -> tuple[str, bytes]:
        found = self._find(id)
        if found is None:
            raise NotFound(f"no object {id} in this push", "push it again")
        objects, kind, size = found
        if size > READ_LIMIT_BYTES:
            raise Refused(f"object {id} is {size} bytes; {READ_LIMIT_BYTES} can be read at once", "split it")
        return kind, bytes(objects.read(id)[1])

    def _find(self, id: ObjectId) -> tuple[pygit2.Odb, str, int] | None:
        """Where an object is, its kind, and its size in bytes."""
        for objects in self._all:
            try:
                kind, size = objects.read_header(id)
            except KeyError:
                continue
            return objects, _KINDS[int(kind)], int(size)
        return None

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
        self._database = QuarantineDatabase(git_dir, quarantine)
        self.view = ObjectStore(self._database)

    def header(self, id: ObjectId) -> tuple[str, int] | None:
        return self._database.header(id)

    def read(self, id: ObjectId) -> bytes:
        return self._database.read(id)[1]

    def known(self, id: ObjectId) -> bool:
        return self._database.known(id)
