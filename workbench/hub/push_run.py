"""One run for a whole push: its only job's record, or a record of kind ``push`` with a step for each job.

Jobs of such a record have runs of their own (their ids are in its options), so that each is planned, resumed and
cancelled as a pipeline or tier is; the push's run passes a cancel on, and shows their events.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence

from workbench.domain.errors import Conflict, WorkbenchError
from workbench.domain.ids import Ulid
from workbench.domain.run import FINAL, RunRecord, State, StepRecord
from workbench.hub.context import Hub
from workbench.hub.planning import Derivation, Job
from workbench.hub.tier_run import TierRun, tier_record
from workbench.pipeline import watch
from workbench.pipeline.plan import Planner
from workbench.pipeline.records import EVENTS, RECORD, RunFolder, queued
from workbench.pipeline.walk import Settings, Walk


class PushRun:
    """Runs the jobs of one push, from the start or from where a dead worker left them."""

    def __init__(self, hub: Hub, derivation: Derivation) -> None:
        self._hub = hub
        self._derivation = derivation

    def run(self, run: Ulid, jobs: Sequence[Job], trigger: str) -> RunRecord:
        """The record at its end. What is raised is the world's failure: try again."""
        record = self._read(run)
        if record is not None and record.state in FINAL:
            return record
        if len(jobs) == 1:
            return self._job(run, jobs[0], trigger, lambda: False, watch.Silent())
        return self._several(run, record or self._begin(run, jobs, trigger), jobs, trigger)

    # --- one job -----------------------------------------------------------------------------------------------------

    def _job(
        self, run: Ulid, job: Job, trigger: str, is_stopped: Callable[[], bool], watcher: watch.Watcher
    ) -> RunRecord:
        record = self._read(run)
        if record is not None and record.state in FINAL:
            return record
        if record is not None and record.state is State.RUNNING:
            record = self._abandoned(record)
        try:
            if job.kind == "tier":
                record = record or self._save(tier_record(self._hub, job, run, trigger))
                return TierRun(self._hub, job, is_stopped).run(record)
            repository = self._hub.repository
            planner = Planner(repository, self._derivation.definition(repository.objects, job), job.source)
            if record is None:
                plan = planner.plan(job.mode)
                now_ms = self._hub.clock.now_ms()
                record = self._save(
                    queued(plan, run=run, trigger=trigger, now_ms=now_ms, options=job.options.to_json())
                )
            settings = Settings(who=self._hub.who, watcher=watcher, is_stopped=is_stopped)
            return Walk(planner, job.mode, settings, self._hub.clock).walk(record)
        except WorkbenchError as error:
            if isinstance(error, Conflict) or self._settled(run):
                raise
            return self._failed(run, job, trigger, error)

    def _settled(self, run: Ulid) -> bool:
        record = self._read(run)
        return record is not None and record.state in FINAL

    def _failed(self, run: Ulid, job: Job, trigger: str, error: WorkbenchError) -> RunRecord:
        """A job that could not even be planned or begun: the record says why."""
        now_ms = self._hub.clock.now_ms()
        record = self._read(run) or RunRecord(
            id=run,
            kind=job.kind,
            subject=job.subject,
            source=job.source,
            trigger=trigger,
            created_ms=now_ms,
            options=job.options.to_json(),
        )
        if record.state is State.ABANDONED:
            record = record.to(State.QUEUED)
        if record.state is State.QUEUED:
            record = record.to(State.RUNNING, started_ms=now_ms)
        return self._save(record.to(State.FAILED, ended_ms=now_ms, error=" ".join(str(error).split("\n"))))

    # --- several jobs ------------------------------------------------------------------------------------------------

    def _begin(self, run: Ulid, jobs: Sequence[Job], trigger: str) -> RunRecord:
        return self._save(
            RunRecord(
                id=run,
                kind="push",
                subject=", ".join(job.label for job in jobs),
                source=jobs[0].source if jobs else "",
                trigger=trigger,
                steps=tuple(StepRecord(job.label, why=job.why) for job in jobs),
                options={"runs": {job.label: self._hub.clock.ulid() for job in jobs}},
                created_ms=self._hub.clock.now_ms(),
            )
        )

    def _several(self, run: Ulid, record: RunRecord, jobs: Sequence[Job], trigger: str) -> RunRecord:
        folder = RunFolder.of(self._hub.repository, run)
        if record.state is State.RUNNING:
            record = self._abandoned(record)
        if record.state is State.ABANDONED:
            record = record.to(State.QUEUED)
        fresh = tuple(StepRecord(step.stage, why=step.why) for step in record.steps)
        with folder.held():
            started_ms = self._hub.clock.now_ms()
            record = self._save(
                RunRecord(**{**record.__dict__, "steps": fresh}).to(
                    State.RUNNING, started_ms=started_ms, host=platform.node(), pid=os.getpid(), error="", ended_ms=0
                )
            )
            events = _Events(folder)
            events.on(watch.RunStarted(run, "push", {job.label: job.why for job in jobs}))
            for job in jobs:
                if folder.is_asked_to_stop():
                    break
                child = Ulid(record.options["runs"][job.label])
                step = record.step(job.label).to(State.RUNNING, started_ms=self._hub.clock.now_ms())
                record = self._save(record.with_step(step))
                ended = self._job(child, job, f"run {run}: {trigger}", folder.is_asked_to_stop, events)
                state = ended.state if ended.state in FINAL else State.FAILED
                now_ms = self._hub.clock.now_ms()
                record = self._save(record.with_step(step.to(state, ended_ms=now_ms, error=ended.error)))
                seconds = (now_ms - step.started_ms) / 1000
                events.on(watch.StepEnded(job.label, state, why=f"run {child}", error=ended.error, seconds=seconds))
            return self._end(record, folder, events)

    def _end(self, record: RunRecord, folder: RunFolder, events: _Events) -> RunRecord:
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
        events.on(watch.RunEnded(record.id, state, error, (now_ms - record.started_ms) / 1000))
        self._hub.repository.runs.write(record.id, {EVENTS: folder.events.read_bytes(), RECORD: record.to_bytes()})
        folder.clear()
        return record

    # --- records -----------------------------------------------------------------------------------------------------

    def _read(self, run: Ulid) -> RunRecord | None:
        data = self._hub.repository.runs.read(run, RECORD)
        return RunRecord.from_bytes(data) if data is not None else None

    def _abandoned(self, record: RunRecord) -> RunRecord:
        """A run whose worker died: what that left running is ended."""
        folder, now_ms = RunFolder.of(self._hub.repository, record.id), self._hub.clock.now_ms()
        if not folder.is_held():  # else ``held`` refuses
            folder.clear()
        for step in record.steps:
            if step.state is State.RUNNING:
                record = record.with_step(step.to(State.ABANDONED, ended_ms=now_ms))
        return record.to(State.ABANDONED, ended_ms=now_ms, error="its worker ended without a word")

    def _save(self, record: RunRecord) -> RunRecord:
        self._hub.repository.runs.write(record.id, {RECORD: record.to_bytes()})
        return record


class _Events:
    """Appends what happens to the push's own events; begin and end of its jobs' runs are told by the steps."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.events

    def on(self, event: watch.WalkEvent) -> None:
        with open(self._path, "a", encoding="utf-8", errors="replace") as file:
            file.write(watch.encode(event) + "\n")
