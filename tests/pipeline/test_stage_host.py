"""The process that runs one stage: events, results, errors, and its end with the runner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from workbench.app.stage_host import run_in_process
from workbench.domain.errors import NativeCrash, UserError
from workbench.domain.events import Log
from workbench.domain.refs import Kind
from workbench.domain.stage import StageResult, StageSpec

STAGE = """
from workbench.app.stage_host import main
from workbench.domain.errors import NativeCrash, UserError
from workbench.domain.refs import Kind
from workbench.domain.stage import StageResult, StageSpec

def square(number):
    return number * number

def run(context):
    {body}
    return StageResult({{"n": 1}}, {{"x": 0.5}})

if __name__ == "__main__":
    main(StageSpec("toy", (), Kind.RAW, lambda dial, given: dict(given)), run)
"""


def _step(folder: Path, **changes: object) -> Path:
    body = {
        "format": 1,
        "stage": "toy",
        "name": "toy",
        "inputs": {},
        "output": str(folder / "output"),
        "scratch": str(folder / "scratch"),
        "checkpoint": None,
        "params": {},
        "seed": 0,
        "workers": 2,
        **changes,
    }
    path = folder / "step.json"
    path.write_text(json.dumps(body))
    return path


def _run(folder: Path, body: str, *arguments: str, stdin: str = "", **changes: object) -> subprocess.CompletedProcess:
    script = folder / "stage.py"
    script.write_text(STAGE.format(body=textwrap.indent(textwrap.dedent(body), "    ").strip()))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), *(arguments or [str(_step(folder, **changes))])]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment, timeout=60)


def test_what_libraries_print_does_not_disturb_the_events(tmp_path: Path) -> None:
    body = """
    import os
    print("noise"); os.system("echo more"); context.say("hello"); context.progress(1, 1, "files", MB=2.0)
    (context.output / "a").write_text("x")
    """
    done = _run(tmp_path, body)
    assert done.returncode == 0
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["log", "progress"]
    assert "noise" in done.stderr
    assert "more" in done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result == {"format": 1, "counts": {"n": 1}, "metrics": {"x": 0.5}, "breaks": ""}
    assert not (tmp_path / "error.json").exists()


def test_progress_is_thinned_but_its_end_is_told(tmp_path: Path) -> None:
    done = _run(tmp_path, "for n in range(10001): context.progress(n, 10000)")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(events) < 500
    assert events[-1]["done"] == 10000


def test_the_users_mistake_is_one_message_and_a_file_that_programs_read(tmp_path: Path) -> None:
    done = _run(tmp_path, 'raise UserError("vocab_size is too small", "give 300 or more")')
    assert done.returncode == 2
    assert done.stderr == "toy: vocab_size is too small\n  give 300 or more\n"
    error = json.loads((tmp_path / "error.json").read_text())
    assert error == {
        "format": 1,
        "error": "UserError",
        "what": "vocab_size is too small",
        "hint": "give 300 or more",
        "exit_code": 2,
    }
    assert not (tmp_path / "result.json").exists()


def test_a_bug_is_shown_whole(tmp_path: Path) -> None:
    done = _run(tmp_path, "1 / 0")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "toy has a bug: ZeroDivisionError" in json.loads((tmp_path / "error.json").read_text())["what"]


WRONG = {
    "missing": (None, "cannot read the step file"),
    "no json": ("{", "cannot be read: not JSON"),
    "another format": ('{"format": 9}', "has format 9; this workbench reads format 1"),
    "a list": ("[]", "a list of 0 is not an object"),
    "no name": ('{"format": 1, "stage": "toy"}', "name: it is missing"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_step_file_is_the_users_mistake(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "wrong.json").write_text(text)
    done = _run(tmp_path, "pass", str(tmp_path / "wrong.json"))
    assert done.returncode == 2
    assert message in done.stderr


def test_the_step_of_another_stage_is_refused(tmp_path: Path) -> None:
    done = _run(tmp_path, "pass", stage="other")
    assert "is a step of other, not of toy" in done.stderr


def test_checkpoints_wait_for_the_runner_and_a_silent_runner_ends_the_stage(tmp_path: Path) -> None:
    body = "context.save_checkpoint(context.scratch); context.say('committed')"
    gone = _run(tmp_path, body, str(_step(tmp_path)), "--attached", stdin="")
    assert gone.returncode == 9
    assert "committed" not in gone.stdout
    command = [sys.executable, str(tmp_path / "stage.py"), str(_step(tmp_path)), "--attached"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as stage:
        assert json.loads(stage.stdout.readline())["event"] == "checkpoint"
        stage.stdin.write("ok\n")
        stage.stdin.flush()  # and stays open: its end would end the stage
        assert json.loads(stage.stdout.readline())["text"] == "committed"
        assert stage.wait(60) == 0
    by_hand = _run(tmp_path, body)
    assert "committed" in by_hand.stdout


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stage_maps_over_processes_with_the_same_result(tmp_path: Path, workers: int) -> None:
    body = 'text = str(list(context.mapper.map(square, range(30), chunk=4))); (context.output / "a").write_text(text)'
    done = _run(tmp_path, body, workers=workers)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output" / "a").read_text() == str([n * n for n in range(30)])


def test_a_stage_runs_in_this_process_for_tests(tmp_path: Path) -> None:
    seen = []

    def resolve(dial, given):
        if "size" not in given:
            raise UserError("no size", "give one")
        return {"dial": dial, **given}

    def run(context) -> StageResult:
        context.say("hello")
        assert context.params == {"dial": 4, "size": 1}
        assert context.name == "test"
        assert list(context.mapper.map(abs, [-1])) == [1]
        (context.output / "a").write_text(str(context.seed))
        return StageResult({"n": 1})

    spec = StageSpec("toy", (), Kind.RAW, resolve)
    out = tmp_path / "out"
    result = run_in_process(spec, run, inputs={}, output=out, params={"size": 1}, dial=4, seed=9, on_event=seen.append)
    assert (result.counts, (out / "a").read_text(), seen) == ({"n": 1}, "9", [Log("hello")])
    with pytest.raises(UserError, match="no size"):
        run_in_process(spec, run, inputs={}, output=out, params={})


def test_native_code_that_crashes_in_a_worker_is_told_with_the_item(tmp_path: Path) -> None:
    script = STAGE.replace(
        "return number * number", "return __import__('ctypes').string_at(0) if number == 5 else number"
    )
    (tmp_path / "crashing.py").write_text(script.format(body="list(context.mapper.map(square, range(30)))"))
    command = [sys.executable, str(tmp_path / "crashing.py"), str(_step(tmp_path))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONFAULTHANDLER": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == NativeCrash.exit_code
    told = json.loads((tmp_path / "error.json").read_text())
    assert (told["error"], told["ended"], told["given"]) == ("NativeCrash", "SIGSEGV", "5")
    assert "Segmentation fault" in done.stderr, "the worker's own account is in the log"


def test_a_stage_that_runs_out_of_memory_has_no_bug(tmp_path: Path) -> None:
    done = _run(tmp_path, "raise MemoryError")
    assert done.returncode == NativeCrash.exit_code
    told = json.loads((tmp_path / "error.json").read_text())
    assert (told["what"], told["ended"]) == ("toy ran out of memory", "out of memory")
