"""Walkers and stages that are killed: the next run finishes, with the trees of an undisturbed one."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from workbench.domain.ids import ZERO_ID
from workbench.domain.run import State
from workbench.pipeline.plan import Mode
from workbench.pipeline.records import RunFolder, abandon_dead, queued, read_record, request_cancel
from workbench.pipeline.walk import Walk, resume

WHO = "Test <test@example.com>"

WALK = """
import sys
from pathlib import Path
from workbench.clock.system import SystemClock
from workbench.domain.ids import ObjectId
from workbench.pipeline.definition import load
from workbench.pipeline.plan import Mode, Planner
from workbench.pipeline.walk import Settings, run_pipeline
from workbench.sandbox.bubblewrap import Bubblewrap
from workbench.store.git.repository import GitRepository
repository = GitRepository(Path(sys.argv[1]))
commit = ObjectId(sys.argv[2])
planner = Planner(repository, load(repository.objects, commit, "toy", ()), commit)
settings = Settings("Test <test@example.com>", 2, sandbox=Bubblewrap)
record = run_pipeline(planner, Mode(), settings, clock=SystemClock(), trigger="test")
print(record.state, record.error)
"""

# Counts to ten with a checkpoint after each; at step ``stop`` it waits for ever, while the gate is shut.
COUNTER = """
import json, os, signal, sys
sys.path.insert(0, "tools")
from pathlib import Path
from steps import begin, end
step, output = begin()
at = Path(step["checkpoint"], "at") if step["checkpoint"] else None
done = at.read_text().split() if at else []
(output.parent / "resumed").touch() if at else None
if at:
    print(json.dumps({"event": "log", "text": f"resumed after {len(done)}"}), flush=True)
for number in range(len(done), 10):
    gate = Path(step["params"]["gate"])
    if number == step["params"]["stop"] and gate.exists():
        gate.with_name("waits").touch()
        signal.pause()
    done.append(str(number * number))
    folder = Path(step["scratch"], f"checkpoint-{number}")
    folder.mkdir()
    (folder / "at").write_text(" ".join(done))
    print(json.dumps({"event": "checkpoint", "folder": str(folder)}), flush=True)
    assert sys.stdin.readline() == "ok\\n"
(output / "words.txt").write_text("\\n".join(done))
end(output)
"""


@dataclass(frozen=True)
class Gate:
    path: Path

    def reached(self) -> int:
        """Wait until the stage waits there; its process."""
        deadline = time.monotonic() + 60
        while not (waits := self.path.with_name("waits")).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        waits.unlink()
        (stage,) = [each.pid for each in psutil.process_iter(["cmdline"]) if _is_stage(each, str(self.path))]
        return stage

    def open(self) -> None:
        self.path.unlink()

    @property
    def is_open(self) -> bool:
        return not self.path.exists()


def _is_stage(process: psutil.Process, gate: str) -> bool:
    line = process.info["cmdline"] or [""]
    return line[0] == "python" and gate in line


@pytest.fixture
def gate(gates: Path) -> Gate:
    (gates / "gate").touch()
    return Gate(gates / "gate")


def _counter(toy, gate: Gate, stop: int = 4) -> None:
    toy.edit({"tools/words.py": COUNTER})
    toy.replace("ci/pipelines/toy.toml", 'text = "b a c a"', f'gate = "{gate.path}"\nstop = {stop}')
    toy.replace("ci/pipelines/toy.toml", 'tools/words.py"]\nmakes', f'tools/words.py", "{gate.path}"]\nmakes')
    toy.replace("ci/pipelines/toy.toml", 'makes = "raw"', 'makes = "raw"\ncheckpoints = true')
    needs = f'needs.write = ["{gate.path.parent}"]'
    toy.replace("ci/pipelines/toy.toml", "checkpoints = true", f"checkpoints = true\n{needs}")


def _walk(toy) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(WALK), str(toy.repository.path), toy.commit]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _killed(toy, gate: Gate) -> int:
    """A walker is killed while its stage waits at the step where it stops; the stage's process."""
    walker = _walk(toy)
    stage = gate.reached()  # returns when it waits there
    walker.kill()
    walker.communicate()
    gate.open()
    return stage


def _undisturbed(toy, new_repository, gate: Gate) -> dict[str, str]:
    """The trees that the same commit makes in another repository, where nothing waits."""
    assert gate.is_open
    other = type(toy)(new_repository("undisturbed.git"), ZERO_ID)
    files = {entry.path: toy.repository.objects.read_blob(entry.id).decode() for entry in _files(toy)}
    other.edit(files)
    record = other.run()
    assert record.error == ""
    return {step.stage: other.artifact(step.artifact).tree for step in record.steps}


def _files(toy):
    return toy.repository.objects.walk(toy.commit)


def _wait_for_end(pid: int) -> None:
    try:
        number = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([number], [], [], 30)[0], f"process {pid} still runs"
    finally:
        os.close(number)


def test_a_walker_killed_while_a_stage_runs_leaves_an_abandoned_run_that_resumes(toy, new_repository, gate) -> None:
    _counter(toy, gate)
    stage = _killed(toy, gate)
    (found,) = abandon_dead(toy.repository, toy.clock)
    _wait_for_end(stage)
    assert found.state is State.ABANDONED
    assert toy.states(found) == {"words": "abandoned", "count": "queued"}
    assert abandon_dead(toy.repository, toy.clock) == []

    record = resume(toy.repository, found.id, (), toy.settings(), clock=toy.clock)
    assert record.id == found.id
    assert record.error == ""
    log = toy.repository.runs.read(record.id, "log/words.txt") or b""
    assert b"resumed after 4" in log
    trees = {step.stage: toy.artifact(step.artifact).tree for step in record.steps}
    assert trees == _undisturbed(toy, new_repository, gate)
    assert toy.repository.runs.read(record.id, "checkpoint/words.json") is None
    assert toy.fsck() == ""


def test_a_new_run_takes_the_checkpoint_of_a_dead_one(toy, new_repository, gate) -> None:
    _counter(toy, gate)
    _killed(toy, gate)
    abandon_dead(toy.repository, toy.clock)
    record = toy.run()
    assert b"resumed after 4" in (toy.repository.runs.read(record.id, "log/words.txt") or b"")
    trees = {step.stage: toy.artifact(step.artifact).tree for step in record.steps}
    assert trees == _undisturbed(toy, new_repository, gate)


def test_a_checkpoint_is_found_past_any_number_of_other_runs(toy, gate) -> None:
    _counter(toy, gate)
    _killed(toy, gate)
    abandon_dead(toy.repository, toy.clock)
    for _ in range(40):
        record = toy.run(how=toy.settings(is_stopped=lambda: True))
        assert record.state == "cancelled"
    record = toy.run()
    assert b"resumed after 4" in (toy.repository.runs.read(record.id, "log/words.txt") or b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_walker_that_is_told_to_end_takes_its_stage_along(toy, gate, number: signal.Signals) -> None:
    _counter(toy, gate)
    walker = _walk(toy)
    stage = gate.reached()
    walker.send_signal(number)
    walker.communicate()
    _wait_for_end(stage)
    (run,) = toy.repository.runs.list()
    assert read_record(toy.repository, run).state is State.CANCELLED


def test_a_new_run_ends_what_a_killed_walker_left_running(toy, gate) -> None:
    _counter(toy, gate)
    stage = _killed(toy, gate)
    assert toy.run().error == ""
    _wait_for_end(stage)


def test_an_interrupted_worker_leaves_its_run_to_the_next_one(toy, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy.clock.ulid()
    plan = toy.planner.plan()
    record = queued(plan, run=run, trigger="test", now_ms=toy.clock.now_ms())

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("workbench.pipeline.own_stage.run_own", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Walk(toy.planner, Mode(), toy.settings(is_taken_up=True), toy.clock).walk(record)
    (found,) = abandon_dead(toy.repository, toy.clock)
    assert found.id == run
    assert resume(toy.repository, run, (), toy.settings(), clock=toy.clock).error == ""


def test_a_killed_stage_fails_its_run_and_the_next_run_goes_on_from_its_checkpoint(toy, new_repository, gate) -> None:
    _counter(toy, gate, stop=7)
    walker = _walk(toy)
    os.kill(gate.reached(), signal.SIGKILL)
    out, _ = walker.communicate()
    assert out.startswith("failed words was ended (SIGKILL)")
    gate.open()
    record = toy.run()
    assert b"resumed after 7" in (toy.repository.runs.read(record.id, "log/words.txt") or b"")
    trees = {step.stage: toy.artifact(step.artifact).tree for step in record.steps}
    assert trees == _undisturbed(toy, new_repository, gate)


def test_a_checkpoint_of_other_parameters_is_not_taken(toy, gate) -> None:
    _counter(toy, gate)
    walker = _walk(toy)
    os.kill(gate.reached(), signal.SIGKILL)
    walker.communicate()
    gate.open()
    toy.replace("ci/pipelines/toy.toml", "stop = 4", "stop = 5")
    record = toy.run()
    assert record.error == ""
    assert b"resumed" not in (toy.repository.runs.read(record.id, "log/words.txt") or b"")


def test_a_running_run_is_cancelled_from_another_process_and_held_only_once(toy, gate) -> None:
    _counter(toy, gate)
    walker = _walk(toy)
    stage = gate.reached()
    (run,) = toy.repository.runs.list()
    assert RunFolder.of(toy.repository, run).is_held()
    assert abandon_dead(toy.repository, toy.clock) == []
    assert request_cancel(toy.repository, run).state is State.RUNNING
    out, _ = walker.communicate(timeout=60)
    assert out.startswith("cancelled")
    _wait_for_end(stage)
    record = read_record(toy.repository, run)
    assert toy.states(record) == {"words": "cancelled", "count": "skipped"}


def test_cancelling_an_abandoned_run_ends_it(toy, gate) -> None:
    _counter(toy, gate)
    walker = _walk(toy)
    stage = gate.reached()
    walker.kill()
    walker.communicate()
    (run,) = toy.repository.runs.list()
    assert request_cancel(toy.repository, run).state is State.CANCELLED
    _wait_for_end(stage)


def test_an_interrupted_walker_ends_its_stage_and_says_cancelled(toy, gate) -> None:
    _counter(toy, gate)
    walker = _walk(toy)
    stage = gate.reached()
    walker.send_signal(signal.SIGINT)
    walker.communicate(timeout=60)
    _wait_for_end(stage)
    (run,) = toy.repository.runs.list()
    assert read_record(toy.repository, run).state is State.CANCELLED


def test_what_a_run_said_is_kept_when_its_walker_was_killed(toy, gate) -> None:
    _counter(toy, gate)
    toy.replace("tools/words.py", "step, output = begin()", "step, output = begin()\nprint('first words', flush=True)")
    _killed(toy, gate)
    (found,) = abandon_dead(toy.repository, toy.clock)
    assert toy.repository.runs.read(found.id, "log/words.txt") == b"first words\n"
    assert b"step_started" in (toy.repository.runs.read(found.id, "events.jsonl") or b"")
