"""A hub that is older than the rule that every push is an entry: where it stands is recorded, once.

There a push of one ref had no entry. What was dealt with stands in HANDLED entries, by ref, and what a push asked for
in a file of ``workbench/pushes/`` until its run had a record. Pushes that wait in such files become entries; then one
entry says where all refs stand. A main or version that no file describes stays to be found (``beside``).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from workbench.domain.errors import WorkbenchError
from workbench.domain.ids import ZERO_ID, ObjectId, object_id, ulid
from workbench.domain.ledger import Action, RefMove
from workbench.domain.push import PushOptions
from workbench.domain.refs import MAIN
from workbench.hub.commits import is_ancestor
from workbench.hub.context import Hub
from workbench.hub.queue import UNREADABLE, WATCHED, fold, found_move
from workbench.ports.store import Ledger
from workbench.system import locks

WHO = "a newer workbench <hub@localhost>"
PATIENCE_S = 10.0


def begin(hub: Hub) -> None:
    """Nothing where the ledger has begun already, or is empty."""
    now = fold(hub.repository)
    if now.is_begun or not now.counter:
        return
    with locks.held(hub.layout.folder / "begin.lock", patience_s=PATIENCE_S):
        now = fold(hub.repository)
        if now.is_begun:
            return
        stands = {ref: id for prefix in WATCHED for ref, id in hub.repository.refs.all(prefix).items()}
        described: set[str] = set()
        done = _dealt_with(hub.repository.ledger, now.counter)
        for intent in _intents(hub, done, stands):
            described.update(ref for ref, _, _ in intent["found"])
            if any(push.evidence["run"] == intent["run"] for push in now.waiting):  # by one who was killed here
                continue
            hub.repository.ledger.change(Action.PUSH, (), who=WHO, why="a push that waited", evidence=intent)
        for ref in list(stands):
            is_work = ref == str(MAIN) or ref.startswith("refs/tags/v")
            if is_work and ref not in described and done.get(ref) != stands[ref]:
                del stands[ref]
                if ref in done:
                    stands[ref] = done[ref]
        hub.repository.ledger.change(
            Action.HANDLED, (), who=WHO, why="every push is an entry from here on", evidence={"stands": stands}
        )
        shutil.rmtree(hub.layout.folder / "pushes", ignore_errors=True)


def _dealt_with(ledger: Ledger, counter: int) -> dict[str, ObjectId]:
    """Up to where all pushes of a ref are dealt with. What an entry moved needs no run unless it was a push: a pin that
    came after a push that waits counts once that push is dealt with."""
    done: dict[str, ObjectId] = {}
    later: list[RefMove] = []
    for entry in reversed(ledger.history(counter)):
        if entry.action is Action.HANDLED:
            with suppress(*UNREADABLE):
                done |= {ref: object_id(id) for ref, id in entry.evidence.get("refs", {}).items()}
        elif entry.action is not Action.PUSH:
            for move in entry.moves:
                if done.get(str(move.ref)) == move.new:  # an undo, to where all was done
                    later = [each for each in later if each.ref != move.ref]
                else:
                    later.append(move)
        for move in list(later):
            if done.get(str(move.ref), ZERO_ID) == move.old:
                done[str(move.ref)] = move.new
                later.remove(move)
    return done


def _intents(hub: Hub, handled: dict[str, ObjectId], now: dict[str, ObjectId]) -> Iterator[dict[str, Any]]:
    """Evidence for each push that happened and was not dealt with, oldest first."""
    objects = hub.open_objects(())

    def came(old: ObjectId, new: ObjectId | None) -> bool:
        try:
            return new is not None and (old == new or is_ancestor(objects, old, new))
        except WorkbenchError:
            return False

    for path in sorted((hub.layout.folder / "pushes").glob("*.json")):
        try:
            raw = json.loads(path.read_bytes())
            moves = [found_move(each) for each in raw["moves"]]
            options = PushOptions.from_json(raw["options"])
            evidence = {"pusher": str(raw["pusher"]), "options": options.to_json(), "run": ulid(raw["run"])}
        except (OSError, *UNREADABLE):
            continue
        happened = all(came(move.new, now.get(str(move.ref))) for move in moves)
        is_done = options.skip or all(came(move.new, handled.get(str(move.ref))) for move in moves)
        if moves and happened and not is_done:
            yield {**evidence, "found": [[str(move.ref), move.old, move.new] for move in moves]}
