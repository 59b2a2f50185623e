"""Runs and their steps as records, and the table of states they may pass through. Not here: who moves them.

==========  =========================================
from        to
==========  =========================================
queued      running, cancelled, abandoned
running     succeeded, failed, cancelled, abandoned
abandoned   queued        (a restarted worker resumes)
==========  =========================================

Succeeded, failed and cancelled are final. A step may also be ``reused`` or ``skipped`` without running.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import Conflict
from workbench.domain.ids import Ulid, ulid
from workbench.domain.reading import (
    Limits,
    anything,
    checked,
    items,
    load_json,
    mapping,
    number,
    one_of,
    optional,
    record,
    text,
    whole,
)

FORMAT = 1
LIMITS = Limits(size_bytes=16 << 20)


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    REUSED = "reused"  # steps only
    SKIPPED = "skipped"  # steps only


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.ABANDONED, State.REUSED, State.SKIPPED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.ABANDONED}),
    State.ABANDONED: frozenset({State.QUEUED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    State.REUSED: frozenset(),
    State.SKIPPED: frozenset(),
}
FINAL = frozenset(state for state, after in TRANSITIONS.items() if not after)


def check_transition(before: State, after: State) -> None:
    if after not in TRANSITIONS[before]:
        allowed = ", ".join(sorted(TRANSITIONS[before])) or "nothing: it is final"
        raise Conflict(f"a {before} run cannot become {after}", f"from {before} it may become {allowed}")


@dataclass(frozen=True)
class StepRecord:
    stage: str
    state: State = State.QUEUED
    why: str = ""
    action_key: str = ""
    artifact: str = ""  # short name of the tag it made or reused
    started_ms: int = 0  # Unix time in milliseconds; 0: not yet
    ended_ms: int = 0
    error: str = ""
    rates: Mapping[str, float] = field(default_factory=dict)  # what depends on the machine: tokens_per_s, …

    def to(self, state: State, **changes: Any) -> StepRecord:
        check_transition(self.state, state)
        return replace(self, state=state, **changes)


@dataclass(frozen=True)
class RunRecord:
    """One walk of a pipeline or a tier."""

    id: Ulid
    kind: str  # "pipeline" or "tier"
    subject: str  # the pipeline's or tier's name
    source: str  # commit that defines it
    trigger: str  # "push refs/heads/main by alice", "command", …
    state: State = State.QUEUED
    steps: tuple[StepRecord, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    created_ms: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    host: str = ""
    pid: int = 0
    error: str = ""

    def to(self, state: State, **changes: Any) -> RunRecord:
        check_transition(self.state, state)
        return replace(self, state=state, **changes)

    def step(self, stage: str) -> StepRecord:
        return next(step for step in self.steps if step.stage == stage)

    def with_step(self, step: StepRecord) -> RunRecord:
        return replace(self, steps=tuple(step if old.stage == step.stage else old for old in self.steps))

    def to_bytes(self) -> bytes:
        return canonical_lines({"format": FORMAT, **_plain(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> RunRecord:
        return load_json(
            data, _RUN, what="run record", limits=LIMITS, hint="`workbench doctor --quick` says how to delete it"
        )


def _plain(record: RunRecord) -> dict[str, Any]:
    fields = {name: getattr(record, name) for name in RunRecord.__dataclass_fields__}
    fields["options"] = dict(record.options)
    fields["steps"] = [
        {**{name: getattr(step, name) for name in StepRecord.__dataclass_fields__}, "rates": dict(step.rates)}
        for step in record.steps
    ]
    return fields


_LONG = text(most=1 << 20)  # what a stage or a person said
_STEP = record(
    StepRecord,
    stage=text(),
    state=one_of(State),
    why=optional(_LONG, ""),
    action_key=optional(text(), ""),
    artifact=optional(text(), ""),
    started_ms=optional(whole(), 0),
    ended_ms=optional(whole(), 0),
    error=optional(_LONG, ""),
    rates=optional(mapping(number()), {}),
)
_RUN = record(
    RunRecord,
    format=(FORMAT,),
    id=checked(text(), ulid),
    kind=text(),
    subject=_LONG,
    source=text(),
    trigger=_LONG,
    state=one_of(State),
    steps=items(_STEP, most=10_000),
    options=optional(mapping(anything()), {}),
    created_ms=optional(whole(), 0),
    started_ms=optional(whole(), 0),
    ended_ms=optional(whole(), 0),
    host=optional(text(), ""),
    pid=optional(whole(), 0),
    error=optional(_LONG, ""),
)
