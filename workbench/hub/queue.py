"""The queue: what is pushed and not yet handled, as a function of refs, the ledger and the intents. Pure.

::

    handled (ledger) ──intent 1──> a ──?──> b ──intent 2──> c  (refs/heads/main)
                                       gap

Each intent on the way from what is handled to where a ref stands is a push that happened; what remains is a gap: one
more push that nobody described (it asked for nothing and started nothing, or its intent was lost).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from workbench.domain import refs
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import RefMove
from workbench.domain.refs import MAIN, AgentVersion, Branch
from workbench.hub.handled import Handled
from workbench.hub.intents import Intent

CameBefore = Callable[[ObjectId, ObjectId], bool]  # whether the first commit is the second, or in its history

_GAP, _LEDGER = -1, -2  # moves that no intent describes: by a push, and by the ledger (no run)
_Edge = tuple[RefMove, int]  # with the index of its intent


@dataclass(frozen=True)
class PendingPush:
    """A push that happened and was not dealt with. ``intent`` is None for what was only found in the refs."""

    moves: tuple[RefMove, ...]
    intent: Intent | None


@dataclass
class _Group:
    """The moves of one push, and its place in the order."""

    rank: tuple[int, int]
    intent: Intent | None
    moves: list[RefMove] = field(default_factory=list)


def pending(
    current: Mapping[str, ObjectId],
    handled: Handled,
    intents: Sequence[Intent],
    came_before: CameBefore = lambda old, new: old == new,
) -> tuple[PendingPush, ...]:
    """In the order in which they happened. ``current`` holds the branches and version tags."""
    by_intent: dict[int, _Group] = {}
    gaps: list[_Group] = []
    latest = -1
    for place, (move, index) in enumerate(_main_chain(current, handled, intents, came_before), 1):
        latest = max(latest, index)  # the chain is the order, even where the clock that named the intents went back
        if index >= 0:
            by_intent[index] = _Group((latest, place), intents[index], [move])
        elif move.old != move.new and index == _GAP:
            gaps.append(_Group((latest, place), None, [move]))
    undescribed = []
    for move, index in [*_versions(current, handled, intents), *_tiers(current, handled, intents, came_before)]:
        if index == _GAP:
            undescribed.append(move)
        else:
            by_intent.setdefault(index, _Group((index, 0), intents[index])).moves.append(move)
    if undescribed:
        last = gaps[-1] if gaps else _Group((len(intents), 0), None)
        last.moves += undescribed
        gaps = [*gaps[:-1], last]
    ordered = sorted([*by_intent.values(), *gaps], key=lambda group: group.rank)
    return tuple(PendingPush(tuple(sorted(g.moves, key=lambda m: str(m.ref))), g.intent) for g in ordered)


def _main_chain(
    current: Mapping[str, ObjectId], handled: Handled, intents: Sequence[Intent], came_before: CameBefore
) -> list[_Edge]:
    """Moves of main from where it is handled to where it stands."""
    name = str(MAIN)
    start, at = handled.refs.get(name, ZERO_ID), current.get(name, ZERO_ID)
    edges = [(m, i) for i, intent in enumerate(intents) for m in intent.moves if m.ref == MAIN]
    edges = [(m, _LEDGER) for m in handled.edges if m.ref == MAIN] + edges
    chain: list[_Edge] = []
    while at != start:
        found = next((edge for edge in reversed(edges) if edge[0].new == at), None)
        if found is None:
            break
        edges.remove(found)
        chain.insert(0, found)
        at = found[0].old
    return [*_forward(start, at, edges, came_before), *chain]


def _forward(start: ObjectId, end: ObjectId, edges: list[_Edge], came_before: CameBefore) -> list[_Edge]:
    """From ``start`` along the edges that lead towards ``end``, with a gap where one is missing."""
    if end == ZERO_ID:  # main is gone: nothing to run
        return []
    edges = [edge for edge in edges if all(_follows(id, end, came_before) for id in (edge[0].old, edge[0].new))]
    chain: list[_Edge] = []
    at = start
    while at != end:
        ahead = [edge for edge in edges if _follows(at, edge[0].old, came_before)]
        if not ahead:
            return [*chain, (RefMove(MAIN, at, end), _GAP)]
        origin = ahead[0][0].old
        for move, _ in ahead:
            if _follows(move.old, origin, came_before):
                origin = move.old
        if origin != at:
            chain.append((RefMove(MAIN, at, origin), _GAP))
        # An attempt that was cut off left an intent too; what then happened from the same commit came later.
        found = next(edge for edge in reversed(ahead) if edge[0].old == origin)
        chain.append(found)
        edges.remove(found)
        at = found[0].new
    return chain


def _follows(at: ObjectId, then: ObjectId, came_before: CameBefore) -> bool:
    return at == then or (then != ZERO_ID and (at == ZERO_ID or came_before(at, then)))


def _versions(current: Mapping[str, ObjectId], handled: Handled, intents: Sequence[Intent]) -> list[_Edge]:
    moves = [
        RefMove.named(ref, ZERO_ID, id)
        for ref, id in sorted(current.items())
        if handled.refs.get(ref) != id and isinstance(refs.parse_any(ref), AgentVersion)
    ]
    last = range(len(intents) - 1, -1, -1)
    return [(move, next((i for i in last if move in intents[i].moves), _GAP)) for move in moves]


def _tiers(
    current: Mapping[str, ObjectId], handled: Handled, intents: Sequence[Intent], came_before: CameBefore
) -> list[_Edge]:
    """A tier on a branch other than main runs only when it was asked for, on each commit for which it was."""
    asked = {move: index for index, intent in enumerate(intents) if intent.options.tier for move in intent.moves}
    found = []
    for move, index in asked.items():
        stands, done = current.get(str(move.ref), ZERO_ID), handled.refs.get(str(move.ref), ZERO_ID)
        if move.ref == MAIN or not isinstance(move.ref, Branch) or ZERO_ID in (move.new, stands):
            continue
        if came_before(move.new, stands) and (done == ZERO_ID or not came_before(move.new, done)):
            found.append((move, index))
    return found
