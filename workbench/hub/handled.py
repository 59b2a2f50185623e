"""Which pushes the ledger says were dealt with: a fold over its entries, kept in a file that may be deleted.

A HANDLED entry sets refs to the values up to which everything was done. A move that the ledger itself made (a pin)
needs no run, unless it was a push: it counts as handled where the ref was handled before it, else it is an edge that
is followed later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.domain.errors import UserError
from workbench.domain.ids import ZERO_ID, ObjectId, object_id
from workbench.domain.ledger import Action, Entry, RefMove
from workbench.ports.store import Ledger
from workbench.system import durable

FORMAT = 1
MAX_EDGES = 500
_SOURCE = ("refs/heads/", "refs/tags/v")


@dataclass
class Handled:
    refs: dict[str, ObjectId] = field(default_factory=dict)
    edges: list[RefMove] = field(default_factory=list)
    counter: int = 0
    commit: str = ""

    def apply(self, entry: Entry) -> None:
        if entry.action is Action.HANDLED:
            self.refs.update({str(ref): ObjectId(id) for ref, id in entry.evidence.get("refs", {}).items()})
        for move in entry.moves if entry.action is not Action.PUSH else ():
            ref = str(move.ref)
            if ref.startswith(_SOURCE):
                stands = self.refs.get(str(move.ref), ZERO_ID)
                if stands == move.old:
                    self.refs[str(move.ref)] = move.new
                elif stands == move.new:  # taken back to where all was done: what lay between is over
                    self.edges = [edge for edge in self.edges if edge.ref != move.ref]
                else:
                    self.edges = [*self.edges[-MAX_EDGES:], move]
        self._follow()
        self.counter, self.commit = entry.counter, entry.commit

    def _follow(self) -> None:
        """Each edge once, in order: a pin and its undo are a circle."""
        for move in list(self.edges):
            if self.refs.get(str(move.ref), ZERO_ID) == move.old:
                self.refs[str(move.ref)] = move.new
                self.edges.remove(move)


class HandledIndex:
    """Brings the fold up to date with the ledger."""

    def __init__(self, ledger: Ledger, path: Path) -> None:
        self._ledger = ledger
        self._path = path

    def read(self) -> Handled:
        head = self._ledger.head()
        kept = self._load()
        if head is None:
            return Handled()
        if kept.commit == head.commit:
            return kept
        newer = list(self._ledger.history(max(1, head.counter - kept.counter + 1)))
        if kept.counter and (newer[-1].counter, newer[-1].commit) == (kept.counter, kept.commit):
            newer.pop()
        else:
            kept, newer = Handled(), list(self._ledger.history(head.counter))
        for entry in reversed(newer):
            kept.apply(entry)
        self._save(kept)
        return kept

    def _load(self) -> Handled:
        """What is kept; nothing where it is of another format or no such file."""
        try:
            raw = json.loads(self._path.read_bytes())
            if raw["format"] != FORMAT:
                return Handled()
            refs = {str(ref): object_id(id) for ref, id in raw["refs"].items()}
            edges = [RefMove.named(str(ref), object_id(old), object_id(new)) for ref, old, new in raw["edges"]]
            return Handled(refs, edges, _counter(raw["counter"]), object_id(raw["commit"]))
        except (OSError, UserError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return Handled()

    def _save(self, handled: Handled) -> None:
        raw = {
            "format": FORMAT,
            "refs": handled.refs,
            "edges": [[str(m.ref), m.old, m.new] for m in handled.edges],
            "counter": handled.counter,
            "commit": handled.commit,
        }
        try:
            durable.write_file(self._path, json.dumps(raw).encode())
        except OSError:  # an index: the fold is done again next time
            return


def _counter(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(value)
    return value
