"""One run for a whole push: the record of its only piece of work, or one of kind ``push`` with a step for each piece.

The pieces of such a record have runs of their own (their ids are in its options), so that each is planned, resumed and
cancelled as a pipeline or tier is; the push's run passes a cancel on, and shows their events. A run that someone walks
by hand is waited for: how it ends there is how it ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from workbench.domain.errors import Conflict, Corrupt, WorkbenchError
from workbench.domain.ids import Ulid
from workbench.domain.run import FINAL, RunRecord, State, StepRecord
from workbench.hub import runs
from workbench.hub.context import Hub
from workbench.hub.planning import Derivation
from workbench.hub.tier_run import TierRun, tier_record
from workbench.hub.work import Work
from workbench.pipeline import records, watch
from workbench.pipeline.plan import Planner
from workbench.pipeline.records import EVENTS, RECORD, RunFolder, queued
from workbench.pipeline.walk import Settings, Walk

POLL_S = 0.2  # how soon it is noticed that someone else's walk has ended


class PushRun:
    """Runs the work of one push, from the start or from where a dead worker left them."""

    def __init__(self, hub: Hub, derivation: Derivation) -> None:
        self._hub = hub
        self._derivation = derivation

    def run(self, run: Ulid, pieces: Sequence[Work], trigger: str) -> RunRecord:
        """The record at its end. What is raised is the world's failure: try again."""
        record = self._read(run)
        if record is not None and record.state in FINAL:
            return record
        if len(pieces) == 1 and (record is None or record.kind == pieces[0].kind):
            return self._one(run, pieces[0], trigger, lambda: False, watch.Silent())
        if record is None:
            record = self._recorded(run, lambda: self._of(run, pieces, trigger))
        elif set(record.options.get("runs", {})) != {work.label for work in pieces}:
            record = self._save(self._of(run, pieces, trigger))  # a workbench that decided otherwise began it
        return self._several(run, record, pieces, trigger)

    def give_up(self, run: Ulid, error: Exception) -> RunRecord:
        """Record that a run, and each piece of it, failed: it cannot be begun or continued. A run that has ended, that
        someone walks by hand, or whose record cannot be read stays as it is."""
        record = runs.show_run(self._hub.repository, run)
        if record.state in FINAL:
            return record
        for work in record.options.get("runs", {}).values():
            with suppress(Corrupt):
                begun = self._read(Ulid(work))
                if begun is not None and not self._is_walked(begun.id):
                    self._end_as_failed(records.abandon_if_dead(self._hub.repository, begun, self._hub.clock), error)
        return self._end_as_failed(record, error)

    def _end_as_failed(self, record: RunRecord, error: Exception) -> RunRecord:
        if record.state in FINAL:
            return record
        now_ms = self._hub.clock.now_ms()
        for step in record.steps:
            if step.state is State.RUNNING:
                record = record.with_step(step.to(State.ABANDONED, ended_ms=now_ms))
            elif step.state is State.QUEUED:
                record = record.with_step(step.to(State.SKIPPED))
        return self._save(_failed(record, now_ms, error))

    # --- one piece of work --------------------------------------------------------------------------------------------

    def _one(
        self, run: Ulid, work: Work, trigger: str, is_stopped: Callable[[], bool], watcher: watch.Watcher
    ) -> RunRecord:
        while True:
            self._await_other_walker(run, is_stopped)
            record = self._read(run)
            if record is not None and record.state in FINAL:
                return record
            try:
                return self._walk(run, record, work, trigger, is_stopped, watcher)
            except records.Walked:  # someone has just begun to
                continue

    def _await_other_walker(self, run: Ulid, is_stopped: Callable[[], bool]) -> None:
        """While someone walks this run by hand (`workbench run --resume`): as long as that takes, as a walk of ours."""
        while self._is_walked(run):
            if is_stopped():
                RunFolder.of(self._hub.repository, run).ask_to_stop()
            time.sleep(POLL_S)

    def _is_walked(self, run: Ulid) -> bool:
        return RunFolder.of(self._hub.repository, run).is_held()

    def _walk(
        self,
        run: Ulid,
        record: RunRecord | None,
        work: Work,
        trigger: str,
        is_stopped: Callable[[], bool],
        watcher: watch.Watcher,
    ) -> RunRecord:
        if record is not None:
            record = records.abandon_if_dead(self._hub.repository, record, self._hub.clock)
        try:
            if work.kind == "tier":
                record = record or self._recorded(run, lambda: tier_record(self._hub, work, run, trigger))
                return TierRun(self._hub, work, is_stopped).run(record)
            repository = self._hub.repository
            planner = Planner(repository, self._derivation.definition(repository.objects, work), work.source)
            if record is None:
                plan = planner.plan(work.mode)
                now_ms = self._hub.clock.now_ms()
                options = work.options.to_json()
                fresh = queued(plan, run=run, trigger=trigger, now_ms=now_ms, options=options)
                record = self._recorded(run, lambda: fresh)
            settings = Settings(
                who=self._hub.who, watcher=watcher, is_stopped=is_stopped, sandbox=self._hub.sandbox, is_taken_up=True
            )
            return Walk(planner, work.mode, settings, self._hub.clock).walk(record)
        except WorkbenchError as error:
            if isinstance(error, Conflict) or self._settled(run):
                raise
            return self._could_not_begin(run, work, trigger, error)

    def _settled(self, run: Ulid) -> bool:
        record = self._read(run)
        return record is not None and record.state in FINAL

    def _could_not_begin(self, run: Ulid, work: Work, trigger: str, error: WorkbenchError) -> RunRecord:
        """What could not even be planned or begun: the record says why."""
        now_ms = self._hub.clock.now_ms()
        record = self._read(run) or RunRecord(
            id=run,
            kind=work.kind,
            subject=work.subject,
            source=work.source,
            trigger=trigger,
            created_ms=now_ms,
            options=work.options.to_json(),
        )
        return self._save(_failed(record, now_ms, error))

    # --- several pieces of work ---------------------------------------------------------------------------------------

    def _of(self, run: Ulid, pieces: Sequence[Work], trigger: str) -> RunRecord:
        return RunRecord(
            id=run,
            kind="push",
            subject=", ".join(work.label for work in pieces),
            source=pieces[0].source if pieces else "",
            trigger=trigger,
            steps=tuple(StepRecord(work.label, why=work.why) for work in pieces),
            options={"runs": {work.label: self._hub.clock.ulid() for work in pieces}},
            created_ms=self._hub.clock.now_ms(),
        )

    def _several(self, run: Ulid, record: RunRecord, pieces: Sequence[Work], trigger: str) -> RunRecord:
        folder = RunFolder.of(self._hub.repository, run)
        record = records.abandon_if_dead(self._hub.repository, record, self._hub.clock)
        if record.state in FINAL:
            return record
        with folder.held():
            record = self._save(records.begun(record, self._hub.clock.now_ms()))
            folder.on(watch.RunStarted(run, "push", {work.label: work.why for work in pieces}))
            for work in pieces:
                if folder.is_asked_to_stop():
                    break
                child = Ulid(record.options["runs"][work.label])
                step = record.step(work.label).to(State.RUNNING, started_ms=self._hub.clock.now_ms())
                record = self._save(record.with_step(step))
                ended = self._one(child, work, f"run {run}: {trigger}", folder.is_asked_to_stop, folder)
                state = ended.state if ended.state in FINAL else State.FAILED
                now_ms = self._hub.clock.now_ms()
                record = self._save(record.with_step(step.to(state, ended_ms=now_ms, error=ended.error)))
                seconds = (now_ms - step.started_ms) / 1000
                folder.on(watch.StepEnded(work.label, state, why=f"run {child}", error=ended.error, seconds=seconds))
            return self._end(record, folder)

    def _end(self, record: RunRecord, folder: RunFolder) -> RunRecord:
        states = [step.state for step in record.steps]
        state = State.SUCCEEDED
        if State.FAILED in states:
            state = State.FAILED
        elif State.CANCELLED in states or State.QUEUED in states:
            state = State.CANCELLED
        error = "; ".join(f"{step.stage}: {step.error}" for step in record.steps if step.error)
        for step in record.steps:
            if step.state is State.QUEUED:
                record = record.with_step(step.to(State.SKIPPED))
        now_ms = self._hub.clock.now_ms()
        record = record.to(state, ended_ms=now_ms, error=error)
        folder.on(watch.RunEnded(record.id, state, error, (now_ms - record.started_ms) / 1000))
        self._hub.repository.runs.write(record.id, {EVENTS: folder.events.read_bytes(), RECORD: record.to_bytes()})
        folder.clear()
        return record

    # --- records ------------------------------------------------------------------------------------------------------

    def _read(self, run: Ulid) -> RunRecord | None:
        data = self._hub.repository.runs.read(run, RECORD)
        return RunRecord.from_bytes(data) if data is not None else None

    def _recorded(self, run: Ulid, make: Callable[[], RunRecord]) -> RunRecord:
        """The run's first record; or the one that is there by now, from whoever cancelled it while it was planned."""
        with RunFolder.of(self._hub.repository, run).held():
            return self._read(run) or self._save(make())

    def _save(self, record: RunRecord) -> RunRecord:
        self._hub.repository.runs.write(record.id, {RECORD: record.to_bytes()})
        return record


def _failed(record: RunRecord, now_ms: int, error: Exception) -> RunRecord:
    if record.state is State.ABANDONED:
        record = record.to(State.QUEUED)
    if record.state is State.QUEUED:
        record = record.to(State.RUNNING, started_ms=now_ms)
    return record.to(State.FAILED, ended_ms=now_ms, error=plain(error))


def plain(error: Exception) -> str:
    """A line that can be written down, whatever bytes the world had in it."""
    return " ".join(str(error).split("\n")).encode("utf-8", "backslashreplace").decode()
