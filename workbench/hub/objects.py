"""What policy may ask of the objects of a push that is still in quarantine. Adapter: ``workbench.store``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from workbench.domain.ids import ObjectId
from workbench.domain.tree_rules import RawEntry, parse_tree
from workbench.ports.store import Objects

MAX_TREE_ENTRIES = 1 << 20


class PushedObjects(Protocol):
    """The hub's objects and those of one push together."""

    def header(self, id: ObjectId) -> tuple[str, int] | None:
        """(kind, size in bytes) without inflating the object; None when it does not exist."""
        ...

    def read(self, id: ObjectId) -> bytes: ...

    @property
    def view(self) -> Objects:
        """The same objects through the store's port; nothing can be added."""
        ...

    def known(self, id: ObjectId) -> bool:
        """Whether the hub had the object before this push."""
        ...


OpenObjects = Callable[[Sequence[Path]], PushedObjects]  # given the quarantine's object folders


def tree_entries(objects: PushedObjects, tree: ObjectId) -> list[RawEntry]:
    return parse_tree(objects.read(tree), MAX_TREE_ENTRIES)
