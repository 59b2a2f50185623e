"""What is pushed to a repository and not handled: the queue, read from its refs, its ledger and the intents."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.domain.errors import WorkbenchError
from workbench.domain.ids import ObjectId
from workbench.hub.commits import MAX_HISTORY
from workbench.hub.handled import HandledIndex
from workbench.hub.intents import Intents
from workbench.hub.layout import HubLayout
from workbench.hub.queue import PendingPush, pending
from workbench.ports.store import Objects, Repository


def pending_in(repository: Repository) -> Sequence[PendingPush]:
    """In the order in which they happened."""
    layout = HubLayout(repository.path)
    current = {**repository.refs.all("refs/heads/"), **repository.refs.all("refs/tags/v")}
    handled = HandledIndex(repository.ledger, layout.handled).read()
    return pending(current, handled, Intents(layout.intents).all(), Ancestry(repository.objects).came_before)


class Ancestry:
    """Which commit came before which; remembers parents."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._parents: dict[ObjectId, tuple[ObjectId, ...]] = {}

    def came_before(self, old: ObjectId, new: ObjectId) -> bool:
        """Whether ``old`` is ``new`` or in its history; False where that cannot be told."""
        seen, waiting = {new}, [new]
        for id in waiting:
            if id == old:
                return True
            fresh = [parent for parent in self._parents_of(id) if parent not in seen]
            seen.update(fresh)
            waiting += fresh
            if len(seen) > MAX_HISTORY:
                return False
        return False

    def _parents_of(self, id: ObjectId) -> tuple[ObjectId, ...]:
        if id not in self._parents:
            try:
                self._parents[id] = self._objects.commit(id).parents
            except WorkbenchError:
                self._parents[id] = ()
        return self._parents[id]
