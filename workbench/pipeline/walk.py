"""The walk of a pipeline: each step is decided, run or reused, and published; the run's record tells it as it goes.

Nothing is half done at any point (``publish``). A walker that dies leaves a record that says ``running`` and no lock;
the next one marks it abandoned, and a run of the same work reuses what was published and resumes training from its last
checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workbench.domain.errors import NativeCrash, UserError, WorkbenchError, WorldError
from workbench.domain.events import Progress
from workbench.domain.ids import ObjectId, Ulid, object_id
from workbench.domain.refs import Kind
from workbench.domain.run import FINAL, RunRecord, State
from workbench.domain.stage import StageSpec
from workbench.pipeline import signals, watch
from workbench.pipeline.definition import load
from workbench.pipeline.plan import Mode, Plan, Planner, StepPlan
from workbench.pipeline.publish import publish
from workbench.pipeline.records import (
    EVENTS,
    RECORD,
    RunFolder,
    abandon_dead,
    abandon_if_dead,
    begun,
    end_of,
    log_path,
    queued,
    read_record,
    whole_log,
)
from workbench.pipeline.rights import check_needs
from workbench.pipeline.step import Listener, StepRun, Stopped
from workbench.ports.sandbox import Sandbox
from workbench.ports.store import Artifact, Repository
from workbench.ports.work import Clock
from workbench.system.trees import remove_tree

LOG_BYTES = 4 << 20  # of one step's log; the rest is dropped and counted
KEPT_PROGRESS_MS = 1000  # progress is kept in the run's events this often


@dataclass(frozen=True)
class Settings:
    """How a walk is done; none of it changes what is made."""

    who: str
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    watcher: watch.Watcher = field(default_factory=watch.Silent)
    is_stopped: Callable[[], bool] = lambda: False
    sandbox: Callable[[], Sandbox] | None = None  # for the workspace's own stages: without one they are refused
    is_taken_up: bool = False  # by the next worker: a run whose walker is interrupted is then left as if it had died


def run_pipeline(
    planner: Planner,
    mode: Mode,
    settings: Settings,
    *,
    clock: Clock,
    trigger: str,
    options: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Plan, record and walk in one go: what ``workbench run`` does."""
    plan = planner.plan(mode)
    check_rights(planner, plan)
    if plan.runs:
        abandon_dead(planner.repository, clock)  # what a dead walker left would run beside the same step
    record = queued(plan, run=clock.ulid(), trigger=trigger, now_ms=clock.now_ms(), options=options)
    return Walk(planner, mode, settings, clock).walk(record)


def check_rights(planner: Planner, plan: Plan) -> None:
    """Refused where a step that would run may not do what it declares."""
    for step in plan.runs:
        check_needs(planner.repository, planner.commit, step.use.spec)


def resume(
    repository: Repository, run: Ulid, specs: Sequence[StageSpec], settings: Settings, *, clock: Clock
) -> RunRecord:
    """Walk a queued or abandoned run, also one whose walker died just now; for one that failed or was cancelled, a new
    run of the same work."""
    record = abandon_if_dead(repository, read_record(repository, run), clock)
    if record.kind != "pipeline":
        raise UserError(
            f"run {run} is a {record.kind}, and only runs of pipelines are resumed by hand",
            "the hub's worker takes up its own; to run it anew, push again",
        )
    name = str(record.options.get("pipeline", record.subject))
    definition = load(repository.objects, object_id(record.source), name, specs)
    planner = Planner(repository, definition, ObjectId(record.source))
    mode = Mode.from_json(record.options.get("mode"))
    if record.state in (State.FAILED, State.CANCELLED, State.SUCCEEDED):
        options = {name: value for name, value in record.options.items() if name not in ("mode", "pipeline")}
        return run_pipeline(planner, mode, settings, clock=clock, trigger=f"resume of {run}", options=options)
    return Walk(planner, mode, settings, clock).walk(record)


@dataclass
class _Log:
    """One step's log, bounded."""

    path: Path
    _left: int = LOG_BYTES
    _dropped: int = 0

    def write(self, line: str) -> bool:
        data = line.encode(errors="replace") + b"\n"
        if len(data) > self._left:
            self._left = 0
            self._dropped += 1
            return False
        self._left -= len(data)
        with open(self.path, "ab") as file:
            file.write(data)
        return True

    def read(self) -> bytes:
        data = self.path.read_bytes() if self.path.exists() else b""
        return data + f"… {self._dropped} more lines dropped\n".encode() if self._dropped else data


@dataclass
class Walk:
    """One walker over one run."""

    planner: Planner
    mode: Mode
    settings: Settings
    clock: Clock
    _record: RunRecord = field(init=False)
    _folder: RunFolder = field(init=False)
    _kept_progress_ms: int = field(default=0, init=False)

    @property
    def repository(self) -> Repository:
        return self.planner.repository

    def walk(self, record: RunRecord) -> RunRecord:
        """Take a queued or abandoned run to its end. A failure is in the record that is returned; what is raised is
        the user's mistake (nothing was begun) or our own bug."""
        self._record, self._folder = record, RunFolder.of(self.repository, record.id)
        selected = self.planner.selected(self.mode)
        with self._folder.held(), signals.raised():
            ended_meanwhile = self._ended_meanwhile()
            if ended_meanwhile is not None:
                self._folder.clear()
                return ended_meanwhile
            try:
                self._begin(selected)
                ended = self._steps(selected)
            except Stopped:
                ended = self._end(State.CANCELLED, "it was asked to stop")
            except KeyboardInterrupt:
                if not self.settings.is_taken_up:
                    self._end(State.CANCELLED, "it was interrupted")
                    self._folder.clear()
                raise
            except (WorkbenchError, OSError) as error:
                ended = self._fail(error)
            self._folder.clear()
            return ended

    def _ended_meanwhile(self) -> RunRecord | None:
        """The record, where another walker has taken the run to its end since it was read."""
        data = self.repository.runs.read(self._record.id, RECORD)
        record = RunRecord.from_bytes(data) if data is not None else None
        return record if record is not None and record.state in FINAL else None

    def _begin(self, selected: frozenset[str]) -> None:
        self._record = begun(self._record, self.clock.now_ms())
        self._save()
        steps = {step.stage: step.why for step in self._record.steps if step.stage in selected}
        self._tell(watch.RunStarted(self._record.id, self._record.subject, steps))

    def _steps(self, selected: frozenset[str]) -> RunRecord:
        made: dict[tuple[Kind, str], Artifact | None] = {}
        for use in self.planner.definition.stages:
            if self._is_stopped():
                raise Stopped
            step = self.planner.decide(use, made, selected=use.spec.name in selected, mode=self.mode)
            if not step.selected:
                self._set(step.stage, State.SKIPPED, why=str(step.reason))
                artifact = step.reused
            elif not step.runs:
                artifact = self._reuse(step)
            else:
                artifact = self._run(step)
            if use.spec.makes is not None and artifact is not None:
                made[use.spec.makes, use.artifact] = artifact
        return self._end(State.SUCCEEDED)

    def _reuse(self, step: StepPlan) -> Artifact | None:
        short = step.reused.tag.short if step.reused else ""
        self._set(step.stage, State.REUSED, why=str(step.reason), action_key=step.key, artifact=short)
        self._tell(watch.StepEnded(step.stage, State.REUSED, short, str(step.reason)))
        return step.reused

    def _run(self, step: StepPlan) -> Artifact | None:
        """Run, publish, record. Whatever goes wrong is on the step's record before it is raised."""
        started_ms = self.clock.now_ms()
        self._set(step.stage, State.RUNNING, why=step.why, action_key=step.key, started_ms=started_ms)
        self._save()
        folder = self._folder.step(step.stage)
        folder.mkdir(parents=True)
        log = _Log(self._folder.path / f"{step.stage}.txt")
        try:
            artifact, why = self._execute(step, folder, log)
        except (WorkbenchError, OSError, Stopped, KeyboardInterrupt) as error:
            stopped = isinstance(error, Stopped | KeyboardInterrupt)
            state = State.CANCELLED if stopped else State.FAILED
            self._ended(step.stage, state, log, started_ms, error="" if stopped else self._told(step.stage, error, log))
            raise
        self._ended(
            step.stage, State.SUCCEEDED, log, started_ms, artifact=artifact.tag.short if artifact else "", why=why
        )
        return artifact

    def _told(self, stage: str, error: BaseException, log: _Log) -> str:
        """An error with the end of the step's log, as far as it does not say it already, and what shows all of it."""
        told = _sentence(error)
        what, _, hint = told.partition("\n")
        tail = end_of(log.read()) if not isinstance(error, NativeCrash) else ()
        lines = [f"  | {line}" for line in tail if line.strip().removeprefix(f"{stage}: ") not in told]
        return "\n".join((what, *lines, *([hint] if hint else []), f"  {whole_log(self._record.id)}"))

    def _execute(self, step: StepPlan, folder: Path, log: _Log) -> tuple[Artifact | None, str]:
        spec = step.use.spec
        threads = self.planner.definition.threads if spec.hardware else self.settings.workers
        run = StepRun(
            self.repository,
            self._record.id,
            step,
            folder,
            self.repository.objects,
            self.planner.commit,
            threads,
            sandbox=self.settings.sandbox() if spec.command and self.settings.sandbox else None,
        )
        check_needs(self.repository, self.planner.commit, spec)
        resumed = run.take_checkpoint()
        self._tell(watch.StepStarted(step.stage, step.why, resumed))
        result = run.execute(self._listener(step.stage, log))
        published = publish(
            self.repository, step, run.output, result, record=self._record, mode=self.mode, who=self.settings.who
        )
        run.drop_checkpoints()
        remove_tree(folder)
        return published

    def _listener(self, stage: str, log: _Log) -> Listener:
        def progress(event: Progress) -> None:
            if event.rates:
                self._change(stage, rates=dict(event.rates))
            self._tell(watch.StepProgress.of(stage, event))

        def line(text: str) -> None:
            if log.write(text):
                self._tell(watch.StepLine(stage, text))

        return Listener(progress, line, lambda: self._tell(watch.StepCheckpoint(stage)), self._is_stopped)

    def _is_stopped(self) -> bool:
        return self.settings.is_stopped() or self._folder.is_asked_to_stop()

    def _ended(
        self,
        stage: str,
        state: State,
        log: _Log,
        started_ms: int,
        *,
        artifact: str = "",
        why: str = "",
        error: str = "",
    ) -> None:
        now_ms = self.clock.now_ms()
        self._set(stage, state, ended_ms=now_ms, error=error, **({"artifact": artifact} if artifact else {}))
        self._tell(watch.StepEnded(stage, state, artifact, why, error, (now_ms - started_ms) / 1000))
        data = log.read()
        self._save({log_path(stage): data} if data else {})

    def _end(self, state: State, error: str = "") -> RunRecord:
        now_ms = self.clock.now_ms()
        record = self._record
        for step in record.steps:
            if step.state is State.QUEUED:
                record = record.with_step(step.to(State.SKIPPED, why=step.why))
        if record.state is State.QUEUED:
            record = record.to(State.RUNNING)
        self._record = record.to(state, ended_ms=now_ms, error=error)
        seconds = (now_ms - self._record.started_ms) / 1000 if self._record.started_ms else 0.0
        self._tell(watch.RunEnded(record.id, state, error, seconds))
        self._save({EVENTS: self._folder.events.read_bytes() if self._folder.events.exists() else b""})
        return self._record

    def _fail(self, error: WorkbenchError | OSError) -> RunRecord:
        """Record a failure. Where not even that can be written (a full disk), the failure itself is raised."""
        failed = any(step.state is State.FAILED for step in self._record.steps)
        try:
            return self._end(State.FAILED, _brief(error) + (f"\n  {whole_log(self._record.id)}" if failed else ""))
        except (WorkbenchError, OSError):
            self._folder.clear()
            raise WorldError(
                _brief(error), "make room or mend the repository, then run again: nothing is half done"
            ) from error

    def _set(self, stage: str, state: State, **changes: Any) -> None:
        self._record = self._record.with_step(self._record.step(stage).to(state, **changes))

    def _change(self, stage: str, **changes: Any) -> None:
        self._record = self._record.with_step(replace(self._record.step(stage), **changes))

    def _save(self, files: Mapping[str, bytes] | None = None) -> None:
        self.repository.runs.write(self._record.id, {RECORD: self._record.to_bytes(), **(files or {})})

    def _tell(self, event: watch.WalkEvent) -> None:
        self.settings.watcher.on(event)
        if isinstance(event, watch.StepProgress):
            now_ms = self.clock.now_ms()
            if now_ms - self._kept_progress_ms < KEPT_PROGRESS_MS:
                return
            self._kept_progress_ms = now_ms
        self._folder.on(event)


def _brief(error: WorkbenchError | OSError) -> str:
    """Without the log, which the step has."""
    return f"{error.what}\n  {error.hint}" if isinstance(error, NativeCrash) else _sentence(error)


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError):
        error = WorldError(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    return str(error)
