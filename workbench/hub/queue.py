"""The queue, and where the ledger left each ref: a fold over the ledger's entries, in a file that may be deleted.

Every push is an entry. What waits are the pushes that start something and whose counter is above the newest HANDLED
entry's ``upto``. Not here: what to do about a ref that stands elsewhere (``beside``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.domain.errors import WorkbenchError
from workbench.domain.ids import ZERO_ID, ObjectId, Ulid, object_id, ulid
from workbench.domain.ledger import Action, Entry, RefMove
from workbench.domain.push import PushOptions
from workbench.hub.layout import HubLayout
from workbench.ports.store import Ledger, Repository

FORMAT = 1
UNREADABLE = (WorkbenchError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
WATCHED = ("refs/heads/", "refs/tags/", "refs/notes/", "refs/workbench/channels/")  # refs that only entries move


@dataclass
class Fold:
    """What the entries up to ``counter`` say."""

    counter: int = 0
    commit: str = ""
    is_begun: bool = False  # whether every push is an entry since then: a hub may be older than that rule
    upto: int = 0  # all pushes up to this entry are handled
    stands: dict[str, ObjectId] = field(default_factory=dict)  # ref -> the value that the ledger gave it last
    missed: list[RefMove] = field(default_factory=list)  # moves beside the ledger that a later entry covered
    waiting: list[Entry] = field(default_factory=list)  # pushes that start something, oldest first

    def apply(self, entry: Entry) -> None:
        evidence = entry.evidence
        if isinstance(evidence.get("stands"), dict):
            self.is_begun, self.missed = True, []
            self.stands = {str(ref): ObjectId(id) for ref, id in evidence["stands"].items()}
        if entry.action is Action.PUSH and "pusher" in evidence:
            self.is_begun = self.is_begun or entry.counter == 1
            found = [found_move(each) for each in evidence.get("found", ())]
            self.missed = [move for move in self.missed if move not in found]
            if "run" in evidence and run_of(entry) and PushOptions.from_json(evidence.get("options", {})):
                self.waiting.append(entry)
        if entry.action is Action.HANDLED:
            self.upto = max(self.upto, evidence.get("upto", 0))
            self.waiting = [push for push in self.waiting if push.counter > self.upto]
        for move in entry.moves:
            self._move(move)
        self.counter, self.commit = entry.counter, entry.commit

    def _move(self, move: RefMove) -> None:
        ref = str(move.ref)
        if not ref.startswith(WATCHED):
            return
        known = self.stands.pop(ref, ZERO_ID)
        if self.is_begun and move.old not in (known, move.new):
            self.missed.append(RefMove(move.ref, known, move.old))
        if move.new != ZERO_ID:
            self.stands[ref] = move.new


def fold(repository: Repository) -> Fold:
    """The fold up to the newest entry; the file is brought up to date where that can be."""
    path = HubLayout(repository.path).fold
    head = repository.ledger.head()
    kept = _load(path)
    if head is None:
        return Fold()
    if kept.commit != head.commit:
        kept = _brought_up(kept, head, repository.ledger)
        _save(path, kept)
    return kept


def waiting(repository: Repository) -> Sequence[Entry]:
    """Pushes that start something and were not handled, oldest first."""
    return fold(repository).waiting


def found_move(raw: Any) -> RefMove:
    ref, old, new = raw
    return RefMove.named(str(ref), object_id(old), object_id(new))


def moves_of(push: Entry) -> tuple[RefMove, ...]:
    """What a push moved, also one whose moves were found after they were made."""
    return tuple(found_move(each) for each in push.evidence.get("found", ())) or push.moves


def run_of(push: Entry) -> Ulid:
    return ulid(push.evidence["run"])


def _brought_up(kept: Fold, head: Entry, ledger: Ledger) -> Fold:
    newer = list(ledger.history(max(1, head.counter - kept.counter + 1)))
    if kept.counter and (newer[-1].counter, newer[-1].commit) == (kept.counter, kept.commit):
        newer.pop()
    else:  # it is of another ledger, or there is none
        kept, newer = Fold(), list(ledger.history(head.counter))
    for entry in reversed(newer):
        try:
            kept.apply(entry)
        except UNREADABLE:  # evidence that no workbench writes, in a ledger that was fetched from somewhere
            kept.counter, kept.commit = entry.counter, entry.commit
    return kept


def _load(path: Path) -> Fold:
    """What is kept; nothing where it is of another format or no such file."""
    try:
        raw = json.loads(path.read_bytes())
        if raw["format"] != FORMAT:
            return Fold()
        return Fold(
            counter=int(raw["counter"]),
            commit=object_id(raw["commit"]),
            is_begun=bool(raw["is_begun"]),
            upto=int(raw["upto"]),
            stands={str(ref): object_id(id) for ref, id in raw["stands"].items()},
            missed=[found_move(each) for each in raw["missed"]],
            waiting=[Entry.from_bytes(text.encode(), object_id(commit)) for commit, text in raw["waiting"]],
        )
    except (OSError, *UNREADABLE):
        return Fold()


def _save(path: Path, fold: Fold) -> None:
    raw = {
        "format": FORMAT,
        "counter": fold.counter,
        "commit": fold.commit,
        "is_begun": fold.is_begun,
        "upto": fold.upto,
        "stands": fold.stands,
        "missed": [[str(move.ref), move.old, move.new] for move in fold.missed],
        "waiting": [[push.commit, push.to_bytes().decode()] for push in fold.waiting],
    }
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        fresh.write_text(json.dumps(raw))
        fresh.replace(path)
    except OSError:  # an index: the fold is done again next time
        fresh.unlink(missing_ok=True)
