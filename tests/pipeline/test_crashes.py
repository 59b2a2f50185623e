"""A stage of ours whose process crashes: the account names what crashed, on what, and has the end of its log."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.domain.errors import OUT_OF_MEMORY, NativeCrash, StageFailed
from workbench.pipeline.output import failure
from workbench.pipeline.process import run_process, step_environment
from workbench.stages.tokenizer.spec import SPEC


def crashed(folder: Path, dataset: Path, on_line: Any, limit: str = "") -> NativeCrash | StageFailed:
    """The tokenizer stage in its own process; ``on_line`` is called with the process's id at its first line."""
    body = {
        "format": 1, "stage": "tokenizer", "name": "tiny", "inputs": {"dataset": str(dataset)},
        "output": str(folder / "output"), "scratch": str(folder / "scratch"), "checkpoint": None,
        "params": SPEC.resolve(0, {"vocab_size": 416}), "seed": 0, "workers": 1,
    }  # fmt: skip
    step = folder / "step.json"
    step.write_text(json.dumps(body))
    log: list[str] = []

    def heard(line: str, *_: object) -> None:
        if not log:
            on_line(int(json.loads((folder / "process.json").read_bytes())["pid"]))
        log.append(line)

    command = [sys.executable, "-m", "workbench.stages.tokenizer", str(step), "--attached"]
    ended = run_process(
        ["sh", "-c", f'{limit}\nexec "$@"', "sh", *command],
        folder=folder,
        working=folder,
        environment=step_environment(os.environ, threads=1, isa="", scratch=folder / "scratch"),
        on_stdout=heard,
        on_stderr=log.append,
        is_stopped=lambda: False,
    )
    return failure(folder, "tokenizer", ended, log, "dataset/tiny/v1.0.0")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE])
def test_a_fault_in_the_middle_of_a_stage_has_python_s_stack(tiny: Any, tmp_path: Path, number: signal.Signals) -> None:
    account = crashed(tmp_path, tiny.dataset, lambda pid: os.kill(pid, number))
    assert isinstance(account, NativeCrash), account
    assert account.ended == number.name
    assert account.what.endswith(f" in tokenizer crashed ({number.name}) on dataset/tiny/v1.0.0")
    assert any(line.startswith("Fatal Python error: ") for line in account.log)
    assert any(line.startswith("File ") for line in account.log), "where Python stood"


def test_an_end_from_outside_is_no_crash_of_the_stage(tiny: Any, tmp_path: Path) -> None:
    account = crashed(tmp_path, tiny.dataset, lambda pid: os.kill(pid, signal.SIGKILL))
    assert isinstance(account, NativeCrash), account
    assert account.what.startswith("tokenizer was ended (SIGKILL)") or account.ended == OUT_OF_MEMORY


@pytest.mark.parametrize("memory_kb", [50_000, 90_000, 110_000, 150_000])
def test_a_stage_that_is_given_too_little_memory_is_told_as_that(tiny: Any, tmp_path: Path, memory_kb: int) -> None:
    """Python, OpenBLAS and SentencePiece each say it in words of their own, or not at all."""
    account = crashed(tmp_path, tiny.dataset, lambda pid: None, limit=f"ulimit -v {memory_kb}")
    if isinstance(account, StageFailed):  # a little more suffices, or is another kind of resource
        assert any(word in account.what for word in ("exit code 0", "start new thread", "SentencePiece gave up"))
        return
    assert account.ended == OUT_OF_MEMORY, account
    assert "memory" in account.hint


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with 12 MiB of memory, which the kernel defends by killing."""
    for base, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = base / f"workbench-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / limit).exists():
                (group / limit).write_text(str(12 << 20))
                yield group
                return
        finally:
            group.rmdir()
    pytest.skip("no control group can be made here")


def test_a_stage_that_the_kernel_ends_for_memory_ran_out_of_it(tiny: Any, tmp_path: Path, small_group: Path) -> None:
    account = crashed(tmp_path, tiny.dataset, lambda pid: None, limit=f"echo $$ >{small_group}/cgroup.procs")
    assert isinstance(account, NativeCrash), account
    assert account.what == "tokenizer ran out of memory on dataset/tiny/v1.0.0"


def test_a_limit_of_processor_time_is_told_as_no_answer(tiny: Any, tmp_path: Path) -> None:
    def at_once(pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_CPU, (0, 100))

    account = crashed(tmp_path, tiny.dataset, at_once)
    assert isinstance(account, NativeCrash), account
    assert "gave no answer in time" in account.what
