"""The process that runs one stage: files in, files out, events on standard output. Not here: what the stages do.

``python -m workbench.stages.<name> step.json`` runs a step by hand; events then appear on the terminal and checkpoints
are accepted as they are. The runner adds ``--attached``: it answers checkpoints on standard input, and the stage ends
when that input closes.

Beside the output folder the host leaves ``result.json`` or, on failure, ``error.json``::

    {"format": 1, "error": "UserError", "what": "…", "hint": "…", "exit_code": 2}

and of a native crash ``crashed ended given`` besides.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from workbench.app import wiring
from workbench.domain.canonical import canonical_lines
from workbench.domain.crash import read_crash
from workbench.domain.errors import NativeCrash, StageFailed, UserError, WorkbenchError
from workbench.domain.events import Checkpoint, Log, Progress, StageEvent, encode
from workbench.domain.printable import printable
from workbench.domain.reading import (
    Limits,
    anything,
    checked,
    load_json,
    mapping,
    nullable,
    optional,
    record,
    text,
    whole,
)
from workbench.domain.stage import STEP_FORMAT, StageResult, StageSpec
from workbench.ports.fetch import Fetcher
from workbench.ports.inference import ModelLoader
from workbench.ports.sandbox import Sandbox
from workbench.ports.work import Mapper, StageContext
from workbench.system.temporary import temporary_folder

RunStage = Callable[[StageContext], StageResult]
PROGRESS_EVERY_S = 0.1


@dataclass(frozen=True)
class Step:
    """What ``step.json`` says."""

    stage: str
    name: str
    inputs: Mapping[str, Path]
    output: Path
    scratch: Path
    checkpoint: Path | None
    params: Mapping[str, Any]
    seed: int
    workers: int

    @classmethod
    def read(cls, path: Path) -> Step:
        """UserError where the file is missing, is not JSON or has another shape."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot read the step file {path}: {error.strerror}", "give the path of a step.json"
            ) from None
        hint = "see workbench/stages/README.md for its shape"
        return load_json(data, _STEP, what=str(path), limits=_LIMITS, error=UserError, hint=hint)


_LIMITS = Limits(size_bytes=16 << 20)
_PATH = checked(text(least=1), Path)
_STEP = record(
    Step,
    format=(STEP_FORMAT,),
    stage=text(),
    name=text(),
    inputs=mapping(_PATH),
    output=_PATH,
    scratch=_PATH,
    checkpoint=optional(nullable(_PATH), None),
    params=mapping(anything()),
    seed=whole(),
    workers=whole(1),
)


@dataclass
class HostContext:
    """A step as its stage sees it; tools are wired on first use.

    ``send`` takes events, ``confirm`` returns when a checkpoint is committed.
    """

    step: Step
    send: Callable[[StageEvent], None]
    confirm: Callable[[Path], None]
    _last_progress_s: float = field(default=0.0, init=False)

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def inputs(self) -> Mapping[str, Path]:
        return self.step.inputs

    @property
    def output(self) -> Path:
        return self.step.output

    @property
    def scratch(self) -> Path:
        return self.step.scratch

    @property
    def checkpoint(self) -> Path | None:
        return self.step.checkpoint

    @property
    def params(self) -> Mapping[str, Any]:
        return self.step.params

    @property
    def seed(self) -> int:
        return self.step.seed

    @property
    def workers(self) -> int:
        return self.step.workers

    @cached_property
    def mapper(self) -> Mapper:
        return wiring.mapper(self.step.workers)

    @cached_property
    def sandbox(self) -> Sandbox:
        return wiring.sandbox()

    @cached_property
    def fetcher(self) -> Fetcher:
        return wiring.fetcher()

    @cached_property
    def models(self) -> ModelLoader:
        return wiring.models()

    def progress(self, done: float, total: float | None = None, unit: str = "", **rates: float) -> None:
        """The first, the last and at most ten a second in between go out."""
        now_s = time.monotonic()
        if now_s - self._last_progress_s < PROGRESS_EVERY_S and done != total:
            return
        self._last_progress_s = now_s
        self.send(Progress(float(done), None if total is None else float(total), unit, rates))

    def say(self, text: str) -> None:
        self.send(Log(text))

    def save_checkpoint(self, folder: Path) -> None:
        self.send(Checkpoint(str(folder.absolute())))
        self.confirm(folder)


def main(spec: StageSpec, run: RunStage, argv: Sequence[str] | None = None) -> None:
    """Run one stage for the command line ``step.json [--attached]`` and leave the process with its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    attached = "--attached" in arguments
    paths = [argument for argument in arguments if not argument.startswith("-")]
    if len(paths) != 1:
        print(f"usage: python -m workbench.stages.{spec.name} step.json", file=sys.stderr)
        sys.exit(UserError.exit_code)
    events = _claim_stdout()
    answers = _Answers() if attached else None
    try:
        code = _run(spec, run, Path(paths[0]), events, answers)
    except BrokenPipeError:
        code = StageFailed.exit_code  # nobody listens any more
    sys.stderr.flush()
    # Native libraries' threads must not keep a finished step alive, nor change its exit code.
    os._exit(code)


def run_in_process(
    spec: StageSpec,
    run: RunStage,
    *,
    inputs: Mapping[str, Path],
    output: Path,
    params: Mapping[str, Any],
    dial: int = 1,
    seed: int = 0,
    workers: int = 2,
    name: str = "test",
    checkpoint: Path | None = None,
    on_checkpoint: Callable[[Path], None] | None = None,
    on_event: Callable[[StageEvent], None] | None = None,
) -> StageResult:
    """Run a stage in this process, for tests and notebooks; ``params`` are completed by the spec, as in a plan."""
    output.mkdir(parents=True, exist_ok=True)
    with temporary_folder("scratch") as scratch:
        step = Step(
            stage=spec.name,
            name=name,
            inputs=dict(inputs),
            output=output,
            scratch=scratch,
            checkpoint=checkpoint,
            params=spec.resolve(dial, params),
            seed=seed,
            workers=workers,
        )
        return run(HostContext(step, on_event or _ignore, on_checkpoint or _ignore))


def _ignore(_: object) -> None:
    return


def _run(spec: StageSpec, run: RunStage, path: Path, events: IO[str], answers: _Answers | None) -> int:
    """The exit code; everything that can go wrong with a stage is reported here, once."""
    beside = path.absolute().parent

    def send(event: StageEvent) -> None:
        events.write(encode(event) + "\n")
        events.flush()

    try:
        step = Step.read(path)
        beside = step.output.absolute().parent
        if step.stage != spec.name:
            raise UserError(
                f"{path} is a step of {step.stage}, not of {spec.name}", f"run workbench.stages.{step.stage}"
            )
        step.output.mkdir(parents=True, exist_ok=True)
        step.scratch.mkdir(parents=True, exist_ok=True)
        result = run(HostContext(step, send, answers.wait if answers else _ignore))
        _write_atomically(beside / "result.json", result_to_json(result))
        return 0
    except BrokenPipeError:
        raise
    except WorkbenchError as error:
        _report(beside, error)
        print(printable(f"{spec.name}: {error}"), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        _report(beside, WorkbenchError("the stage was interrupted"), exit_code=130)
        return 130
    except Exception as error:  # noqa: BLE001 - the edge of the process: a bug is shown whole and recorded
        traceback.print_exc()
        told = read_crash(1, [f"{type(error).__name__}: {error}"], step=spec.name)
        _report(beside, told or WorkbenchError(f"{spec.name} has a bug: {type(error).__name__}: {error}"))
        return told.exit_code if told else 1


def result_to_json(result: StageResult) -> dict[str, Any]:
    return {
        "format": STEP_FORMAT,
        "counts": dict(result.counts),
        "metrics": dict(result.metrics),
        "breaks": result.breaks,
    }


def _report(beside: Path, error: WorkbenchError, exit_code: int = 0) -> None:
    body = {"error": type(error).__name__, "what": error.what, "hint": error.hint}
    if isinstance(error, NativeCrash):
        body |= {"crashed": error.crashed, "ended": error.ended, "given": error.given}
    try:
        _write_atomically(
            beside / "error.json", {"format": STEP_FORMAT, **body, "exit_code": exit_code or error.exit_code}
        )
    except OSError as failure:
        print(f"error.json could not be written: {failure}", file=sys.stderr)


def _write_atomically(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(canonical_lines(dict(value)))
    partial.replace(path)


def _claim_stdout() -> IO[str]:
    """The real standard output for events alone; what libraries print on file descriptor 1 goes to standard error."""
    sys.stdout.flush()
    real = os.dup(1)  # not inheritable: a left-over worker must not hold the runner's pipe open
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return os.fdopen(real, "w", encoding="utf-8", newline="\n")


class _Answers:
    """The runner's side of standard input: ``ok`` for each committed checkpoint; its end: the runner is gone."""

    def __init__(self) -> None:
        self._ready = threading.Semaphore(0)
        self._pipe = os.fdopen(os.dup(0), "rb", buffering=0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)  # programs that the stage starts must not read the runner's answers
        os.close(nothing)
        threading.Thread(target=self._listen, name="runner", daemon=True).start()

    def wait(self, folder: Path) -> None:
        self._ready.acquire()

    def _listen(self) -> None:
        with suppress(OSError, MemoryError):  # what cannot be read has ended
            for line in iter(self._pipe.readline, b""):
                if line.strip() == b"ok":
                    self._ready.release()
        # Nobody will take what this step makes: leave nothing of it running.
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(StageFailed.exit_code)
