"""A run of a tier: the record, its states and its log, around commands in the sandbox."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workbench.domain.errors import ToolMissing, WorkbenchError
from workbench.domain.ids import ObjectId, Ulid
from workbench.domain.run import FINAL, RunRecord, State, StepRecord
from workbench.hub.context import Hub
from workbench.hub.tiers import TierCommand, export, load_tier
from workbench.hub.work import Work
from workbench.pipeline import watch
from workbench.pipeline.plain import plain
from workbench.pipeline.records import EVENTS, RECORD, RunFolder, begun, end_of, log_path, whole_log
from workbench.ports.sandbox import Job, Limits, Outcome, SandboxResult
from workbench.system.temporary import temporary_folder

LOG_BYTES = 256 << 10
WORKSPACE = "/in/workspace"
_PYTHON = ("PYTHONDONTWRITEBYTECODE=1", "PYTHONFAULTHANDLER=1", "PYTHONPATH=/in/packages:/in/house")


def tier_record(hub: Hub, work: Work, run: str, trigger: str) -> RunRecord:
    """The record of a tier that has not begun; UserError when its definition is wrong."""
    commands = load_tier(hub.repository.objects, work.source, work.subject)
    return RunRecord(
        id=run,  # type: ignore[arg-type]
        kind="tier",
        subject=work.subject,
        source=work.source,
        trigger=trigger,
        steps=tuple(StepRecord(command.name, why=work.why) for command in commands),
        options=work.options.to_json(),
        created_ms=hub.clock.now_ms(),
    )


class TierRun:
    """One walker over one run of a tier."""

    def __init__(self, hub: Hub, work: Work, is_stopped: Callable[[], bool]) -> None:
        self._hub = hub
        self._work = work
        self._is_stopped = is_stopped

    def run(self, record: RunRecord) -> RunRecord:
        """Take a queued or abandoned run to its end, whatever that is."""
        self._folder = RunFolder.of(self._hub.repository, record.id)
        if record.state in FINAL:
            return record
        with self._folder.held():
            data = self._hub.repository.runs.read(record.id, RECORD)
            if data is not None and (stands := RunRecord.from_bytes(data)).state in FINAL:  # since the record was read
                self._folder.clear()
                return stands
            self._record = begun(record, self._hub.clock.now_ms())
            self._save({})
            self._folder.on(
                watch.RunStarted(record.id, f"tier {record.subject}", {s.stage: s.why for s in self._record.steps})
            )
            try:
                ended = self._commands()
            except (WorkbenchError, OSError) as error:
                ended = self._end(State.FAILED, " ".join(str(error).split("\n")))
            self._folder.clear()
            return ended

    def _commands(self) -> RunRecord:
        sandbox = self._hub.sandbox()
        missing = sandbox.probe()
        if missing:
            raise ToolMissing("this tier was refused: there is no sandbox to run it in", missing)
        commands = load_tier(self._hub.repository.objects, ObjectId(self._record.source), self._record.subject)
        failed = []
        with temporary_folder("tier") as folder:
            workspace = folder / "workspace"
            workspace.mkdir()
            folder.chmod(0o755)  # the sandbox is another user
            export(self._hub.repository.objects, ObjectId(self._record.source), workspace)
            for command in commands:
                state = State.CANCELLED if self._is_to_stop() else self._command(command, workspace)
                if state is State.CANCELLED:
                    return self._end(State.CANCELLED, "it was asked to stop")
                if state is State.FAILED:
                    failed.append(command.name)
        if failed:
            return self._end(State.FAILED, f"failed: {', '.join(failed)}; see `workbench runs tail {self._record.id}`")
        return self._end(State.SUCCEEDED)

    def _is_to_stop(self) -> bool:
        return self._is_stopped() or self._folder.is_asked_to_stop()

    def _command(self, command: TierCommand, workspace: Path) -> State:
        started_ms = self._hub.clock.now_ms()
        step = self._record.step(command.name).to(State.RUNNING, started_ms=started_ms)
        self._record = self._record.with_step(step)
        self._save({})
        self._folder.on(watch.StepStarted(command.name, self._work.why))
        result = self._hub.sandbox().run(self._sandboxed(command, workspace))
        log = (result.stdout + result.stderr)[:LOG_BYTES]
        for line in log.decode("utf-8", "replace").splitlines():
            self._folder.on(watch.StepLine(command.name, line))
        state, error = _verdict(command.name, result, log, self._record.id)
        now_ms = self._hub.clock.now_ms()
        self._record = self._record.with_step(step.to(state, ended_ms=now_ms, error=error))
        self._folder.on(watch.StepEnded(command.name, state, error=error, seconds=(now_ms - started_ms) / 1000))
        self._save({log_path(command.name): log} if log else {})
        return state

    def _sandboxed(self, command: TierCommand, workspace: Path) -> Job:
        beside = self._hub.tier_folders()
        folders = {"workspace": workspace, **{name: path for name, path in beside.items() if path.is_dir()}}
        files = {name: path.read_bytes() for name, path in beside.items() if path.is_file()}
        variables = [f"{name}={value}" for name, value in sorted(self._work.options.variables.items())]
        limits = Limits(wall_s=command.wall_s, cpu_s=max(1, int(command.wall_s)), output_bytes=LOG_BYTES)
        argv = ["/usr/bin/env", f"--chdir={WORKSPACE}", *_PYTHON, *variables, *command.run]
        return Job(argv=argv, files=files, folders=folders, limits=limits, is_stopped=self._is_to_stop)

    def _end(self, state: State, error: str = "") -> RunRecord:
        now_ms = self._hub.clock.now_ms()
        for step in self._record.steps:
            if step.state is State.QUEUED:
                self._record = self._record.with_step(step.to(State.SKIPPED))
        self._record = self._record.to(state, ended_ms=now_ms, error=error)
        seconds = (now_ms - self._record.started_ms) / 1000
        self._folder.on(watch.RunEnded(self._record.id, state, error, seconds))
        self._save({EVENTS: self._folder.events.read_bytes()})
        return self._record

    def _save(self, files: dict[str, bytes]) -> None:
        self._hub.repository.runs.write(self._record.id, {RECORD: self._record.to_bytes(), **files})


def _verdict(name: str, result: SandboxResult, log: bytes, run: Ulid) -> tuple[State, str]:
    """How the step ended, and what is to be said of it."""
    if result.outcome is Outcome.STOPPED:
        return State.CANCELLED, ""
    if result.outcome is Outcome.EXITED and result.exit_code == 0:
        return State.SUCCEEDED, ""
    crash = result.crash(name)
    told = (
        str(crash)
        if crash
        else "\n  ".join((f"exit {result.exit_code}", *(f"| {plain(line)}" for line in end_of(log))))
    )
    return State.FAILED, f"{told}\n  {whole_log(run)}"
