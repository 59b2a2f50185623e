"""One step: its private folder, its inputs, its process, its checkpoints and its result.

Not here: publishing what it made, and the run around it (``walk``).
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.domain.canonical import canonical_json
from workbench.domain.errors import StageFailed
from workbench.domain.events import Checkpoint, Log, Progress, decode
from workbench.domain.ids import ObjectId, Ulid
from workbench.domain.manifest import MANIFEST
from workbench.domain.stage import STEP_FORMAT, StageResult
from workbench.pipeline import own_stage
from workbench.pipeline.environment import instruction_set
from workbench.pipeline.output import check_files, failure, read_result
from workbench.pipeline.plain import plain
from workbench.pipeline.plan import StepPlan
from workbench.pipeline.process import Ended, run_process, step_environment
from workbench.pipeline.records import checkpoint_note, checkpoint_path, find_checkpoints
from workbench.ports.sandbox import Sandbox
from workbench.ports.store import Artifact, Objects, Repository
from workbench.system.trees import remove_tree

RECORDED = "recorded"  # the input role of a stage that replays
LOG_TAIL = 400  # lines of its log that are looked at when a step fails: the stacks of many threads
WORD, RATES = 40, 8  # characters of a unit, rates of a progress event: the rest is cut


class Stopped(Exception):
    """The run was asked to stop: an ending, not a failure."""


@dataclass(frozen=True)
class Listener:
    """Where a step's events go."""

    progress: Callable[[Progress], None]
    line: Callable[[str], None]
    checkpointed: Callable[[], None]
    is_stopped: Callable[[], bool]


@dataclass(frozen=True)
class StepRun:
    """Runs one step in ``folder``, which is empty before and may be thrown away afterwards."""

    repository: Repository
    run: Ulid
    plan: StepPlan
    folder: Path
    source: Objects  # where a command's code stands, at
    commit: ObjectId
    workers: int
    recorded: Artifact | None = None  # what a stage that fetches from outside made before, to make it again from
    sandbox: Sandbox | None = None  # for a workspace's own command

    def execute(self, listener: Listener) -> StageResult:
        """Run the process to its end; StageFailed or NativeCrash says why it failed, Stopped that it was to end."""
        self._check_not_stopped(listener)
        self.folder.mkdir(parents=True, exist_ok=True)
        log: deque[str] = deque(maxlen=LOG_TAIL)
        kept = _keeping(log, listener)
        return self._result(self._own(kept) if self.plan.use.spec.command else self._ours(kept), log)

    def _ours(self, listener: Listener) -> Ended:
        for name in ("inputs", "output", "scratch"):
            (self.folder / name).mkdir()
        spec, inputs = self.plan.use.spec, self.folder / "inputs"
        for role, artifact in self._inputs().items():
            (inputs / role).symlink_to(self.repository.cache.folder(artifact))
            (inputs / f"{role}.manifest.json").write_bytes(self._manifest(artifact))
        step = self.folder / "step.json"
        step.write_bytes(self._step(inputs, self.output, self.folder / "scratch", self.folder / "checkpoint"))
        environment = step_environment(
            os.environ, threads=self.workers, isa=instruction_set(), scratch=self.folder / "scratch"
        )
        return run_process(
            [sys.executable, "-m", f"workbench.stages.{spec.name}", str(step), "--attached"],
            folder=self.folder,
            working=self.folder,
            environment=environment,
            on_stdout=lambda line, answer: self._on_event(line, answer, self._own_checkpoint, listener),
            on_stderr=lambda line: _say(line, listener),
            is_stopped=listener.is_stopped,
        )

    def _own(self, listener: Listener) -> Ended:
        """The workspace's command, in the sandbox."""
        inside = Path(own_stage.IN)
        step = self._step(inside / "inputs", Path(own_stage.OUTPUT), Path(own_stage.SCRATCH), inside / "checkpoint")
        inputs = {f"inputs/{role}": artifact for role, artifact in self._inputs().items()}
        checkpoint = {"checkpoint": self.folder / "checkpoint"} if self.resumes else {}
        return own_stage.run_own(
            self.plan.use.spec,
            self.sandbox,
            folder=self.folder,
            files={"step.json": step, **{f"{at}.manifest.json": self._manifest(each) for at, each in inputs.items()}},
            folders={
                "code": self._code(), **checkpoint,
                **{at: self.repository.cache.folder(each) for at, each in inputs.items()},
            },
            workers=self.workers,
            on_line=lambda line, answer, take: self._on_event(line, answer, self._taken_by(take), listener),
            on_error=lambda line: _say(line, listener),
            is_stopped=listener.is_stopped,
        )  # fmt: skip

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def resumes(self) -> bool:
        return (self.folder / "checkpoint").exists()

    def take_checkpoint(self) -> bool:
        """Bring the newest checkpoint of exactly this action, of this run or an earlier one, if there is one."""
        if not self.plan.use.spec.checkpoints:
            return False
        for run in find_checkpoints(self.repository, self.plan.stage, self.plan.key):
            target = self.folder / "checkpoint"
            if self.repository.runs.checkout_folder(run, checkpoint_path(self.plan.stage), target):
                return True
        return False

    def drop_checkpoints(self) -> None:
        """The step is done: nobody resumes it."""
        stage = self.plan.stage
        if not self.plan.use.spec.checkpoints:
            return
        for run in find_checkpoints(self.repository, stage, self.plan.key):
            self.repository.runs.write(run, {checkpoint_note(stage): None}, folders={checkpoint_path(stage): None})

    def _check_not_stopped(self, listener: Listener) -> None:
        if listener.is_stopped():
            raise Stopped

    def _step(self, inputs: Path, output: Path, scratch: Path, checkpoint: Path) -> bytes:
        """``step.json``, with the places as the stage sees them."""
        use = self.plan.use
        body: dict[str, Any] = {
            "format": STEP_FORMAT,
            "stage": use.spec.name,
            "name": use.artifact,
            "inputs": {role: str(inputs / role) for role in self._inputs()},
            "output": str(output),
            "scratch": str(scratch),
            "checkpoint": str(checkpoint) if self.resumes else None,
            "params": dict(use.params),
            "seed": use.seed,
            "workers": self.workers,
        }
        return canonical_json(body)

    def _inputs(self) -> Mapping[str, Artifact]:
        """By role. A stage has each as a read-only folder, beside its ``<role>.manifest.json``."""
        recorded = {RECORDED: self.recorded} if self.recorded else {}
        return {each.role: each.artifact for each in self.plan.inputs if each.artifact is not None} | recorded

    def _manifest(self, artifact: Artifact) -> bytes:
        return self.repository.objects.read_file(artifact.tree, MANIFEST)

    def _code(self) -> Path:
        """A command runs beside its own code, as the commit has it."""
        place = self.folder / "code"
        place.mkdir()
        objects = self.source
        for path in self.plan.use.spec.code_paths:
            entry = objects.entry(self.commit, path)
            assert entry is not None, "the code digest has read it"
            below = entry.mode == 0o40000
            for blob in objects.walk(self.commit, path) if below else [entry]:
                if blob.mode not in (0o100644, 0o100755):
                    raise StageFailed(f"{path} holds a link or submodule", "a command's code is regular files only")
                target = place / path / blob.path if below else place / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(objects.read_blob(blob.id))
                target.chmod(blob.mode & 0o777)
        return place

    def _on_event(
        self, line: str, answer: Callable[[], None], taken: Callable[[str], Path], listener: Listener
    ) -> None:
        """``taken`` gives the folder, of ours, with what the stage offers as a checkpoint."""
        event = decode(line)
        if isinstance(event, Progress):
            listener.progress(_shown(event))
        elif isinstance(event, Log):
            _say(event.text, listener)
        elif isinstance(event, Checkpoint):
            self._keep_checkpoint(event.folder, taken)
            listener.checkpointed()
            answer()

    def _keep_checkpoint(self, offered: str, taken: Callable[[str], Path]) -> None:
        stage, folder = self.plan.stage, taken(offered)
        if not self.plan.use.spec.checkpoints:
            raise StageFailed(
                f"{stage} offered a checkpoint, and nothing says that it has any",
                "write `checkpoints = true` where the pipeline names its command",
            )
        check_files(folder, stage)
        note = canonical_json({"format": 1, "action_key": self.plan.key})
        self.repository.runs.write(self.run, {checkpoint_note(stage): note}, folders={checkpoint_path(stage): folder})

    def _own_checkpoint(self, offered: str) -> Path:
        folder = Path(offered)
        if not _is_folder_below(folder, self.folder):
            stage = self.plan.stage
            raise StageFailed(f"{stage} offered a checkpoint outside its own folders", "write it below `scratch`")
        return folder

    def _taken_by(self, take: Callable[[str, Path], None]) -> Callable[[str], Path]:
        def taken(offered: str) -> Path:
            place = self.folder / "offered"
            remove_tree(place)
            take(offered, place)
            return place

        return taken

    def _result(self, ended: Ended, log: Sequence[str]) -> StageResult:
        stage = self.plan.stage
        if ended.stopped:
            raise Stopped
        if ended.exit_code != 0:
            given = ", ".join(each.artifact.tag.short for each in self.plan.inputs if each.artifact)
            hint = (
                "the command of this stage, or a library that it uses, is at fault"
                if self.plan.use.spec.command
                else ""
            )
            raise failure(self.folder, stage, ended, list(log), given, hint=hint)
        result = read_result(self.folder, stage)
        count = check_files(self.output, stage)
        if not count and self.plan.use.spec.makes is not None:
            raise StageFailed(
                f"{stage} left no files", f"what it leaves in its output folder becomes {self.plan.use.spec.makes}"
            )
        remove_tree(self.folder / "scratch")
        return result


def _is_folder_below(folder: Path, above: Path) -> bool:
    try:
        return folder.resolve().is_relative_to(above.resolve()) and folder.is_dir()
    except (OSError, ValueError, RuntimeError):  # no path at all, or links that lead in a circle
        return False


def _keeping(log: deque[str], listener: Listener) -> Listener:
    """The listener, with each line kept in ``log`` as well."""

    def line(text: str) -> None:
        log.append(text)
        listener.line(text)

    return replace(listener, line=line)


def _say(text: str, listener: Listener) -> None:
    for line in text.split("\n"):
        listener.line(plain(line))


def _shown(event: Progress) -> Progress:
    """Its words short and plain: they stand in tables, records and JSON."""
    rates = {plain(name)[:WORD]: value for name, value in list(event.rates.items())[:RATES]}
    return replace(event, unit=plain(event.unit)[:WORD], rates=rates)
