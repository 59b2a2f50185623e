"""The ledger's nouns: a move of one ref, and an entry that moves several at once. Not here: writing them.

The ledger is the one commit point. An entry names each ref with its old and new value, who, why and the evidence, and
has a counter that rises by one. Channels, tags and branches are projected from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from workbench.domain.canonical import canonical_lines
from workbench.domain.ids import ZERO_ID, ObjectId, object_id
from workbench.domain.reading import Limits, anything, checked, items, load_json, mapping, one_of, record, text, whole
from workbench.domain.refs import Ref, UnknownRef, parse_any

FORMAT = 1
LIMITS = Limits(size_bytes=64 << 20, values=2_000_000)  # a mirror of many refs is one entry


class Action(StrEnum):
    """What a ledger entry records."""

    INIT = "init"
    PUSH = "push"  # also what moved beside us, once it is found
    PUBLISH = "publish"  # an artifact and its run-cache entry
    IMPORT = "import"
    PIN = "pin"  # a release pinned: main, version tag, channel
    PROMOTE = "promote"
    UNDO = "undo"
    UNBUNDLE = "unbundle"
    TRUST = "trust"  # what came in by a bundle or an import gets its names
    DISCARD = "discard"  # or goes
    HANDLED = "handled"  # the worker has dealt with all pushes up to one
    DELETE = "delete"
    RENAME = "rename"  # a ref whose name stood in everybody's way


@dataclass(frozen=True)
class RefMove:
    """One ref from ``old`` to ``new``; ``ZERO_ID`` stands for absent."""

    ref: Ref | UnknownRef
    old: ObjectId = ZERO_ID
    new: ObjectId = ZERO_ID

    @classmethod
    def named(cls, name: str, old: ObjectId = ZERO_ID, new: ObjectId = ZERO_ID) -> RefMove:
        """By the ref's full name, also where today's grammar does not have it."""
        return cls(parse_any(name), old, new)


@dataclass(frozen=True)
class Entry:
    counter: int
    action: Action
    moves: tuple[RefMove, ...]
    who: str
    why: str
    time_ms: int
    evidence: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""  # the ledger commit that holds it; filled when read

    def to_bytes(self) -> bytes:
        return canonical_lines(
            {
                "format": FORMAT,
                "counter": self.counter,
                "action": self.action.value,
                "moves": [{"ref": str(m.ref), "old": m.old, "new": m.new} for m in self.moves],
                "who": self.who,
                "why": self.why,
                "time_ms": self.time_ms,
                "evidence": dict(self.evidence),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, commit: str = "") -> Entry:
        entry = load_json(data, _ENTRY, what="ledger entry", limits=LIMITS, hint="run `workbench doctor`")
        return replace(entry, commit=commit)


_MOVE = record(
    RefMove, ref=checked(text(most=1024), parse_any), old=checked(text(), object_id), new=checked(text(), object_id)
)
_ENTRY = record(
    Entry,
    format=(FORMAT,),
    counter=whole(),
    action=one_of(Action),
    moves=items(_MOVE),
    who=text(most=1 << 16),
    why=text(most=1 << 20),
    time_ms=whole(),
    evidence=mapping(anything()),
)
