"""What moved beside the ledger: a fetch into the hub, a library that runs no hooks, plain ``git update-ref``.

It is found by comparing the refs with where the ledger left them, judged by the rules of a push of the hub's owner, and
recorded as an entry that starts what a push would have started. What breaks a rule is not recorded and never run; the
log and ``doctor`` tell it. Not here: what to make of a hub that is older than that (``older``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from workbench.domain.errors import Conflict, WorkbenchError
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.domain.push import Push, PushOptions
from workbench.domain.refs import MAIN, Branch, parse_any
from workbench.domain.roles import OWNER
from workbench.hub import older
from workbench.hub.commits import MAX_HISTORY, read_commit
from workbench.hub.context import Hub
from workbench.hub.objects import PushedObjects
from workbench.hub.planning import Derivation
from workbench.hub.policy import CleanTrees, Judged, judge
from workbench.hub.queue import WATCHED, Fold, fold
from workbench.ports.store import Refs
from workbench.system import locks

PROJECTED_S = 0.05
WHO = "found beside the ledger <hub@localhost>"


@dataclass(frozen=True)
class Stray:
    """A ref that is not where the ledger left it; ``why``: the rule that this breaks, or empty."""

    move: RefMove
    why: str = ""


def look(hub: Hub) -> Sequence[Stray]:
    """What moved beside the ledger and is not recorded. Changes nothing."""
    found = fold(hub.repository)
    if not found.is_begun and found.counter:
        return []  # the next push records where it stands
    return [Stray(move, _Judge(hub).reason([move])) for move in _moved(hub)]


def settle(hub: Hub, told: Sequence[Stray] = ()) -> Sequence[Stray]:
    """Record what the rules allow; returns the rest, with why. What was ``told`` before is not judged again."""
    older.begin(hub)
    try:
        with locks.held(hub.layout.beside_lock):
            return _settle(hub, {stray.move: stray for stray in told})
    except locks.Busy:  # another process is at it
        return told


def _settle(hub: Hub, told: Mapping[RefMove, Stray]) -> Sequence[Stray]:
    judge_ = _Judge(hub)
    for move in fold(hub.repository).missed:
        judge_.record([move], ())
    moves = _moved(hub)
    fresh = [move for move in moves if move not in told]
    whole = [move for move in fresh if not _is_dropped_branch(move)]
    groups = [[move] for move in fresh]
    if len(whole) > 1 and not judge_.reason(whole):  # a fetch of main with its version, as one push of them
        groups = [whole, *([move] for move in fresh if _is_dropped_branch(move))]
    strays = [told[move] for move in moves if move in told]
    for group in groups:
        why = judge_.reason(group)
        if why:
            strays += [Stray(move, why) for move in group]
        else:
            judge_.record(group, [RefMove(move.ref, move.new, move.new) for move in group])
    return strays


def _moved(hub: Hub) -> list[RefMove]:
    """Looked at twice: an entry that was just written moves its refs a moment later."""
    first = _seen(hub)
    if first:
        hub.repository.ledger.recover()
        time.sleep(PROJECTED_S)
    still = _seen(hub) if first else []
    return [move for move in first if move in still]


def _seen(hub: Hub) -> list[RefMove]:
    """Branches first: a version is on main. The refs are read before the ledger: what an entry moved is known there."""
    now = {ref: id for ref, id in hub.repository.refs.all().items() if ref.startswith(WATCHED)}
    found = fold(hub.repository)
    names = sorted(ref for ref in {*now, *found.stands} if now.get(ref) != found.stands.get(ref))
    return [RefMove(parse_any(ref), found.stands.get(ref, ZERO_ID), now.get(ref, ZERO_ID)) for ref in names]


def _is_dropped_branch(move: RefMove) -> bool:
    """Branches of the hub are its owner's to delete, where no push can."""
    return move.new == ZERO_ID and isinstance(move.ref, Branch) and move.ref != MAIN


class _Judge:
    """The rules of a push, for moves that were made already."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._judged: dict[tuple[RefMove, ...], Judged | str] = {}

    def reason(self, moves: Sequence[RefMove]) -> str:
        """Why these may not be; empty where they may."""
        judged = self._of(tuple(moves))
        return judged if isinstance(judged, str) else ""

    def _of(self, moves: tuple[RefMove, ...]) -> Judged | str:
        if moves not in self._judged:
            try:
                self._judged[moves] = self._judge(moves)
            except WorkbenchError as error:
                self._judged[moves] = " ".join(error.what.split())
            except Exception as error:  # noqa: BLE001  (a bug of ours with what others made stops nobody else's work)
                self._judged[moves] = f"it cannot be judged: {error!r}"
        return self._judged[moves]

    def _judge(self, moves: tuple[RefMove, ...]) -> Judged:
        push = Push(moves, PushOptions(), OWNER)
        if all(_is_dropped_branch(move) for move in moves):
            return Judged(push, None, frozenset(), work=())
        objects = _Since(self._hub.open_objects(()), fold(self._hub.repository))
        judged = judge(push, objects, _Before(self._hub.repository.refs, moves), CleanTrees())
        return judged.with_work(Derivation(self._hub.specs).work(objects.view, judged))

    def record(self, moves: Sequence[RefMove], stands: Sequence[RefMove]) -> None:
        """An entry for moves that were made; ``stands`` are the refs that stand there still."""
        judged = self._of(tuple(moves))
        evidence: dict[str, Any] = {"pusher": OWNER, "found": [[str(m.ref), m.old, m.new] for m in moves]}
        if isinstance(judged, str):
            evidence["error"] = judged
        elif judged.work:
            evidence |= {"run": self._hub.clock.ulid(), "work": [work.to_json() for work in judged.work]}
        names = ", ".join(str(move.ref) for move in moves[:5])
        try:
            self._hub.repository.ledger.change(
                Action.PUSH, stands, who=WHO, why=f"found beside the ledger: {names}", evidence=evidence
            )
        except Conflict:  # it has moved on: the next look sees where
            return


class _Since:
    """The hub's objects, where only the history that the ledger knows was there before."""

    def __init__(self, objects: PushedObjects, found: Fold) -> None:
        self.view = objects.view
        self.header = objects.header
        self.read = objects.read
        self._objects = objects
        self._tips = [id for ref, id in found.stands.items() if ref.startswith("refs/heads/")]

    def known(self, id: ObjectId) -> bool:
        return id in self._history

    @cached_property
    def _history(self) -> set[ObjectId]:
        seen, waiting = set(self._tips), list(self._tips)
        while waiting and len(seen) < MAX_HISTORY:
            with suppress(WorkbenchError):
                parents = set(read_commit(self._objects, waiting.pop()).parents) - seen
                seen |= parents
                waiting += parents
        return seen


class _Before:
    """The refs as they stood before these moves."""

    def __init__(self, refs: Refs, moves: Sequence[RefMove]) -> None:
        self._refs = refs
        self._old = {str(move.ref): move.old for move in moves}

    def get(self, ref: str) -> ObjectId | None:
        old = self._old.get(ref)
        return self._refs.get(ref) if old is None else None if old == ZERO_ID else old

    def all(self, prefix: str = "refs/") -> Mapping[str, ObjectId]:
        stood = {ref: id for ref, id in self._old.items() if ref.startswith(prefix)}
        every = {**self._refs.all(prefix), **stood}
        return {ref: id for ref, id in every.items() if id != ZERO_ID}

    def swap(self, moves: Sequence[RefMove]) -> None:
        raise AssertionError("refs of the past do not move")


def mending(move: RefMove, git_dir: object) -> str:
    """The command that puts a ref back to where the ledger left it."""
    where = f"git --git-dir={git_dir} update-ref"
    return f"{where} -d {move.ref}" if move.old == ZERO_ID else f"{where} {move.ref} {move.old}"
