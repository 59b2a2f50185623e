"""Walkers and stages that are killed: the next run finishes, with the trees of an undisturbed one."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from workbench.domain.ids import ZERO_ID
from workbench.domain.run import State
from workbench.pipeline.plan import Mode
from workbench.pipeline.records import RunFolder, abandon_dead, queued, read_record, request_cancel
from workbench.pipeline.walk import Settings, Walk, resume

WHO = "Test <test@example.com>"

WALK = """
import sys
from pathlib import Path
from workbench.clock.system import SystemClock
from workbench.domain.ids import ObjectId
from workbench.pipeline.definition import load
from workbench.pipeline.plan import Mode, Planner
from workbench.pipeline.walk import Settings, run_pipeline
from workbench.store.git.repository import GitRepository
repository = GitRepository(Path(sys.argv[1]))
commit = ObjectId(sys.argv[2])
planner = Planner(repository, load(repository.objects, commit, "toy", ()), commit)
record = run_pipeline(planner, Mode(), Settings("Test <test@example.com>", 2), clock=SystemClock(), trigger="test")
print(record.state, record.error)
"""

# Counts to ten with a checkpoint after each; at step ``stop`` it tells its pid through the pipe, if there is one, and
# waits.
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
    if number == step["params"]["stop"] and os.path.exists(step["params"]["pipe"]):
        with open(step["params"]["pipe"], "w") as pipe:
            pipe.write(str(os.getpid()))
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


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def _counter(toy, pipe: Path, stop: int = 4) -> None:
    toy.edit({"tools/words.py": COUNTER})
    toy.replace("ci/pipelines/toy.toml", 'text = "b a c a"', f'pipe = "{pipe}"\nstop = {stop}')
    toy.replace("ci/pipelines/toy.toml", 'makes = "raw"', 'makes = "raw"\ncheckpoints = true')


def _walk(toy) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(WALK), str(toy.repository.path), toy.commit]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _killed(toy, pipe: Path) -> int:
    """A walker is killed while its stage waits at the step where it stops; the stage's process."""
    walker = _walk(toy)
    stage = int(pipe.read_text())  # returns when it waits there
    walker.kill()
    walker.communicate()
    pipe.unlink()
    return stage


def _undisturbed(toy, new_repository, pipe: Path) -> dict[str, str]:
    """The trees that the same commit makes in another repository, where nothing waits."""
    assert not pipe.exists()
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


def test_a_walker_killed_while_a_stage_runs_leaves_an_abandoned_run_that_resumes(toy, new_repository, pipe) -> None:
    _counter(toy, pipe)
    stage = _killed(toy, pipe)
    (found,) = abandon_dead(toy.repository, toy.clock)
    _wait_for_end(stage)
    assert found.state is State.ABANDONED
    assert toy.states(found) == {"words": "abandoned", "count": "queued"}
    assert abandon_dead(toy.repository, toy.clock) == []

    record = resume(toy.repository, found.id, (), Settings(WHO, 2), clock=toy.clock)
    assert record.id == found.id
    assert record.error == ""
    log = toy.repository.runs.read(record.id, "log/words.txt") or b""
    assert b"resumed after 4" in log
    trees = {step.stage: toy.artifact(step.artifact).tree for step in record.steps}
    assert trees == _undisturbed(toy, new_repository, pipe)
    assert toy.repository.runs.read(record.id, "checkpoint/words.json") is None
    assert toy.fsck() == ""


def test_a_new_run_takes_the_checkpoint_of_a_dead_one(toy, new_repository, pipe) -> None:
    _counter(toy, pipe)
    _killed(toy, pipe)
    abandon_dead(toy.repository, toy.clock)
    record = toy.run()
    assert b"resumed after 4" in (toy.repository.runs.read(record.id, "log/words.txt") or b"")
    trees = {step.stage: toy.artifact(step.artifact).tree for step in record.steps}
    assert trees == _undisturbed(toy, new_repository, pipe)


def test_a_checkpoint_is_found_past_any_number_of_other_runs(toy, pipe) -> None:
    _counter(toy, pipe)
    _killed(toy, pipe)
    abandon_dead(toy.repository, toy.clock)
    for _ in range(40):
        record = toy.run(settings=Settings(WHO, 2, is_stopped=lambda: True))
        assert record.state == "cancelled"
    record = toy.run()
    assert b"resumed after 4" in (toy.repository.runs.read(record.id, "log/words.txt") or b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_walker_that_is_told_to_end_takes_its_stage_along(toy, pipe, number: signal.Signals) -> None:
    _counter(toy, pipe)
    walker = _walk(toy)
    stage = int(pipe.read_text())
    walker.send_signal(number)
    walker.communicate()
    _wait_for_end(stage)
    (run,) = toy.repository.runs.list()
    assert read_record(toy.repository, run).state is State.CANCELLED


def test_a_new_run_ends_what_a_killed_walker_left_running(toy, pipe) -> None:
    _counter(toy, pipe)
    stage = _killed(toy, pipe)
    assert toy.run().error == ""
    _wait_for_end(stage)


def test_an_interrupted_worker_leaves_its_run_to_the_next_one(toy, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy.clock.ulid()
    plan = toy.planner.plan()
    record = queued(plan, run=run, trigger="test", now_ms=toy.clock.now_ms())

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("workbench.pipeline.step.run_process", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Walk(toy.planner, Mode(), Settings(WHO, 2, is_taken_up=True), toy.clock).walk(record)
    (found,) = abandon_dead(toy.repository, toy.clock)
    assert found.id == run
    assert resume(toy.repository, run, (), Settings(WHO, 2), clock=toy.clock).error == ""


def test_a_killed_stage_fails_its_run_and_the_next_run_goes_on_from_its_checkpoint(toy, new_repository, pipe) -> None:
    _counter(toy, pipe, stop=7)
    walker = _walk(toy)
    os.kill(int(pipe.read_text()), signal.SIGKILL)
    out, _ = walker.communicate()
    assert out.startswith("failed words was ended (SIGKILL)")
    pipe.unlink()
    record = toy.run()
    assert b"resumed after 7" in (toy.repository.runs.read(record.id, "log/words.txt") or b"")
    trees = {step.stage: toy.artifact(step.artifact).tree for step in record.steps}
    assert trees == _undisturbed(toy, new_repository, pipe)


def test_a_checkpoint_of_other_parameters_is_not_taken(toy, pipe) -> None:
    _counter(toy, pipe)
    walker = _walk(toy)
    os.kill(int(pipe.read_text()), signal.SIGKILL)
    walker.communicate()
    pipe.unlink()
    toy.replace("ci/pipelines/toy.toml", "stop = 4", "stop = 5")
    record = toy.run()
    assert record.error == ""
    assert b"resumed" not in (toy.repository.runs.read(record.id, "log/words.txt") or b"")


def test_a_running_run_is_cancelled_from_another_process_and_held_only_once(toy, pipe) -> None:
    _counter(toy, pipe)
    walker = _walk(toy)
    stage = int(pipe.read_text())
    (run,) = toy.repository.runs.list()
    assert RunFolder.of(toy.repository, run).is_held()
    assert abandon_dead(toy.repository, toy.clock) == []
    assert request_cancel(toy.repository, run).state is State.RUNNING
    out, _ = walker.communicate(timeout=60)
    assert out.startswith("cancelled")
    _wait_for_end(stage)
    record = read_record(toy.repository, run)
    assert toy.states(record) == {"words": "cancelled", "count": "skipped"}


def test_cancelling_an_abandoned_run_ends_it(toy, pipe) -> None:
    _counter(toy, pipe)
    walker = _walk(toy)
    stage = int(pipe.read_text())
    walker.kill()
    walker.communicate()
    (run,) = toy.repository.runs.list()
    assert request_cancel(toy.repository, run).state is State.CANCELLED
    _wait_for_end(stage)


def test_an_interrupted_walker_ends_its_stage_and_says_cancelled(toy, pipe) -> None:
    _counter(toy, pipe)
    walker = _walk(toy)
    stage = int(pipe.read_text())
    walker.send_signal(signal.SIGINT)
    walker.communicate(timeout=60)
    _wait_for_end(stage)
    (run,) = toy.repository.runs.list()
    assert read_record(toy.repository, run).state is State.CANCELLED


def test_what_a_run_said_is_kept_when_its_walker_was_killed(toy, pipe) -> None:
    _counter(toy, pipe)
    toy.replace("tools/words.py", "step, output = begin()", "step, output = begin()\nprint('first words', flush=True)")
    _killed(toy, pipe)
    (found,) = abandon_dead(toy.repository, toy.clock)
    assert toy.repository.runs.read(found.id, "log/words.txt") == b"first words\n"
    assert b"step_started" in (toy.repository.runs.read(found.id, "events.jsonl") or b"")
