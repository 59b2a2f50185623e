"""The queue: what is pushed and not yet handled, as a function of refs, the ledger and the intents. Pure.

::

    handled (ledger) ──?──> a ──intent 1──> b ──intent 2──> c  (refs/heads/main)
                       gap

Walking back from where a ref stands, each intent that leads there is a push that happened; what remains is a gap, one
more push that nobody described.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from workbench.domain import refs
from workbench.domain.errors import UserError
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import RefMove
from workbench.domain.refs import MAIN, AgentVersion, Branch
from workbench.hub.handled import Handled
from workbench.hub.intents import Intent

_GAP, _LEDGER = -1, -2  # moves that no intent describes: by a push, and by the ledger (no run)


@dataclass(frozen=True)
class PendingPush:
    """A push that happened and was not dealt with. ``intent`` is None for what was only found in the refs."""

    moves: tuple[RefMove, ...]
    intent: Intent | None


def pending(current: Mapping[str, ObjectId], handled: Handled, intents: Sequence[Intent]) -> tuple[PendingPush, ...]:
    """In the order in which they happened. ``current`` holds the branches and version tags."""
    found: dict[int, list[RefMove]] = {}  # by index of the intent
    for move, index in _main_chain(current, handled, intents):
        found.setdefault(index, []).append(move)
    for ref, id in sorted(current.items()):
        if not ref.startswith("refs/tags/v") or handled.refs.get(ref) == id or not _is_version(ref):
            continue
        index = _intent_of(intents, RefMove(ref, ZERO_ID, id))
        found.setdefault(index, []).append(RefMove(ref, ZERO_ID, id))
    for index, intent in enumerate(intents):
        for move in intent.moves:
            if _asked_of_branch(intent, move) and current.get(move.ref) == move.new != handled.refs.get(move.ref):
                found.setdefault(index, []).append(move)
    pushes = [PendingPush(tuple(moves), intents[i] if i >= 0 else None) for i, moves in sorted(found.items())]
    return tuple(replace(push, moves=tuple(sorted(push.moves, key=lambda m: m.ref))) for push in pushes)


def _main_chain(
    current: Mapping[str, ObjectId], handled: Handled, intents: Sequence[Intent]
) -> list[tuple[RefMove, int]]:
    """Moves of main from where it is handled to where it stands, each with the index of its intent."""
    name = str(MAIN)
    start, at = handled.refs.get(name, ZERO_ID), current.get(name, ZERO_ID)
    edges = [(m, i) for i, intent in enumerate(intents) for m in intent.moves if m.ref == name]
    edges = [(m, _LEDGER) for m in handled.edges if m.ref == name] + edges
    chain: list[tuple[RefMove, int]] = []
    while at != start and edges:
        position = next((p for p in range(len(edges) - 1, -1, -1) if edges[p][0].new == at), None)
        if position is None:
            break
        move, index = edges.pop(position)
        chain.append((move, index))
        at = move.old
    if at != start and at != ZERO_ID:
        chain.append((RefMove(name, start, at), _GAP))
    return [(move, index) for move, index in reversed(chain) if index != _LEDGER and move.old != move.new]


def _intent_of(intents: Sequence[Intent], move: RefMove) -> int:
    return next((i for i in range(len(intents) - 1, -1, -1) if move in intents[i].moves), _GAP)


def _asked_of_branch(intent: Intent, move: RefMove) -> bool:
    """A tier on a branch other than main runs only when it was asked for."""
    if not intent.options.tier or move.new == ZERO_ID or move.ref == str(MAIN):
        return False
    return isinstance(refs.parse(move.ref), Branch)


def _is_version(ref: str) -> bool:
    try:
        return isinstance(refs.parse(ref), AgentVersion)
    except UserError:
        return False
