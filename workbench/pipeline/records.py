"""Runs as they are kept: the record in the run's ref, and the run's private folder while a walker lives.

The folder ``<git directory>/workbench/steps/<run>`` holds a lock that says whether a walker lives, the events so far,
the step in work, and a file that asks it to stop. It is thrown away at the end. Not here: what a walker does.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from workbench.domain.errors import Conflict, Corrupt, NotFound
from workbench.domain.ids import Ulid
from workbench.domain.reading import BadInput, parse_json, record, text
from workbench.domain.run import FINAL, RunRecord, State, StepRecord
from workbench.pipeline.leftovers import end_noted, end_strays
from workbench.pipeline.plan import Plan
from workbench.pipeline.watch import WalkEvent, encode
from workbench.ports.store import Repository
from workbench.ports.work import Clock
from workbench.system import locks
from workbench.system.trees import remove_tree

RECORD = "run.json"
_NOTE = record(lambda action_key: action_key, format=(1,), action_key=text())  # of a checkpoint
EVENTS = "events.jsonl"
LOOKERS = 3  # who only looks whether a run is held holds it for a moment as well
HOLD_TRIES = 1000  # to lock a run while others clear its folder
TAIL_LINES, TAIL_BYTES = 8, 16 << 10
RECENT = 30  # runs that are searched for a dead walker


def log_path(stage: str) -> str:
    return f"log/{stage}.txt"


def end_of(log: bytes) -> list[str]:
    """Its last lines, as they are told with an error."""
    lines = log[-TAIL_BYTES:].decode(errors="replace").splitlines()
    return [line for line in lines if line.strip()][-TAIL_LINES:]


def whole_log(run: Ulid) -> str:
    """The command that shows all that the steps of a run said."""
    return f"the whole log: workbench runs tail {run}"


def checkpoint_path(stage: str) -> str:
    return f"checkpoint/{stage}"


def checkpoint_note(stage: str) -> str:
    return f"checkpoint/{stage}.json"


def queued(plan: Plan, *, run: Ulid, trigger: str, now_ms: int, options: Mapping[str, Any] | None = None) -> RunRecord:
    """The record of a run that has not begun; its options hold the mode and the pipeline's file, so that any
    walker can take it up."""
    return RunRecord(
        id=run,
        kind="pipeline",
        subject=plan.definition.name,
        source=plan.commit,
        trigger=trigger,
        steps=tuple(StepRecord(step.stage, why=step.why, action_key=step.key) for step in plan.steps),
        options={**(options or {}), "mode": plan.mode.to_json(), "pipeline": plan.definition.file},
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
        with suppress(Corrupt):
            data = repository.runs.read(run, RECORD)
            if data is not None:
                yield RunRecord.from_bytes(data)


class Walked(Conflict):
    """Another walker holds the run."""

    def __init__(self, run: str) -> None:
        super().__init__(f"run {run} is being walked already", "follow it: workbench runs tail")


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

    def on(self, event: WalkEvent) -> None:
        """Add an event to them: the folder is a watcher."""
        with open(self.events, "a", encoding="utf-8", errors="replace") as file:
            file.write(encode(event) + "\n")

    def step(self, stage: str) -> Path:
        return self.path / "step" / stage

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run for this walker; Walked when another one walks it. The kernel lets go when we die."""
        busy = 0
        for _ in range(HOLD_TRIES):
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock = open(self.path / "lock", "wb")  # noqa: SIM115 (closed below)
            except (FileNotFoundError, FileExistsError):  # the folder was cleared just now
                continue
            with lock:
                if not locks.take(lock.fileno()):
                    busy += 1
                    if busy > LOOKERS:
                        raise Walked(self.path.name) from None
                    time.sleep(0.005)
                    continue
                if self._is_lock(lock.fileno()):
                    try:
                        yield
                    finally:
                        self._leave()
                    return
        raise Walked(self.path.name)

    def _leave(self) -> None:
        """Remove the folder where it was cleared: the lock last, while it is still ours."""
        with suppress(OSError):
            if os.listdir(self.path) == ["lock"]:
                (self.path / "lock").unlink()
                self.path.rmdir()

    def _is_lock(self, fd: int) -> bool:
        """Whether this open file still is the lock: its folder may have been cleared before we had it."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self.path / "lock"))
        except FileNotFoundError:
            return False

    def is_held(self) -> bool:
        return locks.is_held(self.path / "lock")

    def said(self) -> dict[str, bytes]:
        """What the walker had written so far, as the run's ref keeps it: its events, and the log of each step."""
        logs = {log_path(path.stem): path for path in self.path.glob("*.txt")}
        return {name: path.read_bytes() for name, path in {**logs, EVENTS: self.events}.items() if path.is_file()}

    def ask_to_stop(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "cancel").touch()

    def is_asked_to_stop(self) -> bool:
        return (self.path / "cancel").exists()

    def clear(self) -> None:
        """End what a dead walker left running, and remove everything but the lock. Only for who holds the run."""
        for step in sorted(self.path.glob("step/*")):
            end_noted(step / "process.json")
            end_strays(str(step / "scratch"))
        for path in self.path.iterdir() if self.path.is_dir() else ():
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            elif path.name != "lock":
                path.unlink(missing_ok=True)


def request_cancel(repository: Repository, run: Ulid) -> RunRecord:
    """Ask the walker of a run to stop; a queued run ends at once. Conflict when it has ended."""
    read_record(repository, run)
    folder = RunFolder.of(repository, run)
    try:
        with folder.held():  # so that nobody begins to walk it meanwhile
            record = read_record(repository, run)
            if record.state in FINAL:
                folder.clear()
                raise Conflict(f"run {run} has {record.state} already", "there is nothing to cancel")
            if record.state is State.RUNNING:
                record = record.to(State.ABANDONED)
            if record.state is State.ABANDONED:
                record = record.to(State.QUEUED)
            record = record.to(State.CANCELLED)
            repository.runs.write(run, {**folder.said(), RECORD: record.to_bytes()})
            folder.clear()
            return record
    except Walked:
        folder.ask_to_stop()
        record = read_record(repository, run)
        if record.state in FINAL:  # it ended meanwhile
            folder.clear()
        return record


def abandon_dead(repository: Repository, clock: Clock) -> Sequence[RunRecord]:
    """Mark runs whose walker died as abandoned, and end what they left running."""
    running = [record for record in recent(repository) if record.state is State.RUNNING]
    after = [abandon_if_dead(repository, record, clock) for record in running]
    return [record for record in after if record.state is State.ABANDONED]


def begun(record: RunRecord, now_ms: int) -> RunRecord:
    """A queued or abandoned run as this process begins to walk it: each step is still to be done."""
    again = tuple(
        StepRecord(step.stage, why=step.why, action_key=step.action_key) if step.state is not State.QUEUED else step
        for step in record.steps
    )
    record = replace(record if record.state is not State.ABANDONED else record.to(State.QUEUED), steps=again)
    return record.to(State.RUNNING, started_ms=now_ms, ended_ms=0, error="", host=platform.node(), pid=os.getpid())


def abandon_if_dead(repository: Repository, record: RunRecord, clock: Clock) -> RunRecord:
    """The record as it stands, abandoned (or cancelled, if that was asked for) where it said ``running`` and nobody
    walks it."""
    folder = RunFolder.of(repository, record.id)
    if record.state is not State.RUNNING or folder.is_held():
        return record
    try:
        with folder.held():  # so that nobody begins to walk it meanwhile
            record = read_record(repository, record.id)
            if record.state is not State.RUNNING:
                return record
            asked, said = folder.is_asked_to_stop(), folder.said()
            folder.clear()
            now_ms = clock.now_ms()
            for step in record.steps:
                if step.state is State.RUNNING:
                    record = record.with_step(step.to(State.ABANDONED, ended_ms=now_ms))
            record = record.to(State.ABANDONED, ended_ms=now_ms, error="its walker ended without a word")
            if asked:
                record = record.to(State.QUEUED).to(State.CANCELLED, error="it was asked to stop, and its walker ended")
            repository.runs.write(record.id, {**said, RECORD: record.to_bytes()})
    except Walked:
        return record
    return record


def find_checkpoints(repository: Repository, stage: str, key: str) -> Sequence[Ulid]:
    """Runs that hold a checkpoint of exactly this action, newest first. All are searched: pushes and tiers are runs as
    well, and many of them may come between a training and the next."""
    found = []
    for run in repository.runs.list():
        try:
            note = repository.runs.read(run, checkpoint_note(stage))
            if note is not None and _NOTE.read(parse_json(note), "") == key:
                found.append(run)
        except (BadInput, Corrupt):
            continue  # no checkpoint of ours
    return found
