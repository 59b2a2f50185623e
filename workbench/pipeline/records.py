"""Runs as they are kept: the record in the run's ref, and the run's private folder while a walker lives.

The folder ``<git directory>/workbench/steps/<run>`` holds a lock that says whether a walker lives, the events so far,
the step in work, and a file that asks it to stop. It is thrown away at the end. Not here: what a walker does.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from workbench.domain.errors import Conflict, Corrupt, NotFound
from workbench.domain.ids import Ulid
from workbench.domain.run import FINAL, RunRecord, State, StepRecord
from workbench.pipeline.leftovers import end_noted, end_strays, remove_tree
from workbench.pipeline.plan import Plan
from workbench.ports.store import Repository
from workbench.ports.work import Clock

RECORD = "run.json"
EVENTS = "events.jsonl"
RECENT = 30  # runs that are searched for a checkpoint or a dead walker


def log_path(stage: str) -> str:
    return f"log/{stage}.txt"


def checkpoint_path(stage: str) -> str:
    return f"checkpoint/{stage}"


def checkpoint_note(stage: str) -> str:
    return f"checkpoint/{stage}.json"


def queued(plan: Plan, *, run: Ulid, trigger: str, now_ms: int, options: Mapping[str, Any] | None = None) -> RunRecord:
    """The record of a run that has not begun; its options hold the mode, so that any walker can take it up."""
    return RunRecord(
        id=run,
        kind="pipeline",
        subject=plan.definition.name,
        source=plan.commit,
        trigger=trigger,
        steps=tuple(StepRecord(step.stage, why=str(step.reason), action_key=step.key) for step in plan.steps),
        options={**(options or {}), "mode": plan.mode.to_json()},
        created_ms=now_ms,
    )


def read_record(repository: Repository, run: Ulid) -> RunRecord:
    data = repository.runs.read(run, RECORD)
    if data is None:
        raise NotFound(f"no run {run}", "see `workbench runs list`")
    return RunRecord.from_bytes(data)


def recent(repository: Repository, limit: int = RECENT) -> Iterator[RunRecord]:
    """Newest first; records that only a newer workbench can read are passed over."""
    for run in islice(repository.runs.list(), limit):
        data = repository.runs.read(run, RECORD)
        with suppress(Corrupt):
            if data is not None:
                yield RunRecord.from_bytes(data)


@dataclass(frozen=True)
class RunFolder:
    """The private folder of one run."""

    path: Path

    @classmethod
    def of(cls, repository: Repository, run: Ulid) -> RunFolder:
        return cls(repository.path / "workbench" / "steps" / run)

    @property
    def events(self) -> Path:
        """Events of a run that lives; afterwards they are in the run's ref under ``events.jsonl``."""
        return self.path / EVENTS

    def step(self, stage: str) -> Path:
        return self.path / "step" / stage

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run for this walker; Conflict when another one walks it. The kernel lets go when we die."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / "lock", "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    f"run {self.path.name} is being walked already", "follow it: workbench runs tail"
                ) from None
            yield

    def is_held(self) -> bool:
        try:
            with open(self.path / "lock", "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False

    def ask_to_stop(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "cancel").touch()

    def is_asked_to_stop(self) -> bool:
        return (self.path / "cancel").exists()

    def clear(self) -> None:
        """End what a dead walker left running, and remove everything."""
        for step in sorted(self.path.glob("step/*")):
            end_noted(step / "process.json")
            end_strays(str(step / "scratch"))
        remove_tree(self.path)


def request_cancel(repository: Repository, run: Ulid) -> RunRecord:
    """Ask the walker of a run to stop; a queued run ends at once. Conflict when it has ended."""
    record = read_record(repository, run)
    if record.state in FINAL:
        raise Conflict(f"run {run} has {record.state} already", "there is nothing to cancel")
    folder = RunFolder.of(repository, run)
    if record.state is State.RUNNING and folder.is_held():
        folder.ask_to_stop()
        return record
    if record.state is State.RUNNING:
        record = record.to(State.ABANDONED)
    if record.state is State.ABANDONED:
        record = record.to(State.QUEUED)
    record = record.to(State.CANCELLED)
    repository.runs.write(run, {RECORD: record.to_bytes()})
    folder.clear()
    return record


def abandon_dead(repository: Repository, clock: Clock) -> Sequence[RunRecord]:
    """Mark runs whose walker died as abandoned, and end what they left running."""
    found = []
    for record in recent(repository):
        folder = RunFolder.of(repository, record.id)
        if record.state is not State.RUNNING or folder.is_held():
            continue
        folder.clear()
        now_ms = clock.now_ms()
        for step in record.steps:
            if step.state is State.RUNNING:
                record = record.with_step(step.to(State.ABANDONED, ended_ms=now_ms))
        record = record.to(State.ABANDONED, ended_ms=now_ms, error="its walker ended without a word")
        repository.runs.write(record.id, {RECORD: record.to_bytes()})
        found.append(record)
    return found


def find_checkpoints(repository: Repository, stage: str, key: str) -> Sequence[Ulid]:
    """Runs that hold a checkpoint of exactly this action, newest first."""
    found = []
    for run in islice(repository.runs.list(), RECENT):
        note = repository.runs.read(run, checkpoint_note(stage))
        if note is not None and json.loads(note).get("action_key") == key:
            found.append(run)
    return found
