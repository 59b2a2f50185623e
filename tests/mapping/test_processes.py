"""The mapper: same results in the same order, whatever the number of workers; errors and deaths are told."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path

import pytest

from workbench.domain.errors import NativeCrash, StageFailed
from workbench.mapping.processes import LOOK_AHEAD, ProcessMapper


def square(number: int) -> int:
    return number * number


def power(exponent: int, number: int) -> int:
    return number**exponent


def fail_at_five(number: int) -> int:
    if number == 5:
        raise ValueError("five")
    return number


def die_at_five(number: int) -> int:
    if number == 5:
        os._exit(1)
    return number


def crash_at_five(number: int) -> int:
    return ctypes.string_at(0)[0] if number == 5 else number


def crash_once(note: Path, number: int) -> int:
    if number == 5 and not note.exists():
        note.touch()
        os.kill(os.getpid(), signal.SIGBUS)
    return number


def kill_at_five(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 7])
def test_results_come_in_the_order_of_the_items(workers: int, chunk: int) -> None:
    assert list(ProcessMapper(workers).map(square, range(40), chunk=chunk)) == [n * n for n in range(40)]


def test_a_partial_function_and_no_items_are_fine() -> None:
    assert list(ProcessMapper(2).map(partial(power, 3), [1, 2, 3])) == [1, 8, 27]
    assert list(ProcessMapper(2).map(square, [])) == []
    assert list(ProcessMapper(0).map(square, [3])) == [9]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_is_raised_where_its_result_would_have_stood(workers: int) -> None:
    results = ProcessMapper(workers).map(fail_at_five, range(10))
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)


def test_a_worker_that_ends_is_told() -> None:
    with pytest.raises(StageFailed, match="ended with exit code 1 while mapping die_at_five"):
        list(ProcessMapper(2).map(die_at_five, range(10)))


def test_native_code_that_crashes_in_a_worker_is_told_with_the_item_it_crashes_on() -> None:
    results = ProcessMapper(2).map(crash_at_five, range(10), chunk=3)
    with pytest.raises(NativeCrash) as caught:
        list(results)
    assert caught.value.what == "native code in crash_at_five crashed (SIGSEGV) on 5"


def test_a_crash_that_does_not_come_again_blames_no_item(tmp_path: Path) -> None:
    with pytest.raises(NativeCrash) as caught:
        list(ProcessMapper(2).map(partial(crash_once, tmp_path / "crashed"), range(10)))
    assert caught.value.what == "native code in crash_once crashed (SIGBUS)"
    assert "did not crash again" in caught.value.hint


def test_a_worker_that_somebody_ended_blames_no_item() -> None:
    with pytest.raises(NativeCrash) as caught:
        list(ProcessMapper(2).map(kill_at_five, range(10)))
    assert caught.value.what == "a worker of kill_at_five was ended (SIGKILL)"
    assert "memory" in caught.value.hint


def test_items_are_taken_only_a_little_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in count():
            taken += 1
            yield number

    assert list(islice(ProcessMapper(2).map(square, items()), 3)) == [0, 1, 4]
    assert taken <= 3 + 2 * LOOK_AHEAD


def test_workers_end_when_their_parent_is_killed(tmp_path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, sys
            from workbench.mapping.processes import ProcessMapper

            def pid(_): return os.getpid()

            if __name__ == "__main__":
                results = ProcessMapper(2).map(pid, range(100))
                print(next(results), flush=True)
                signal.pause()
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as parent:
        worker = int(parent.stdout.readline())
        number = os.pidfd_open(worker)
        parent.kill()
    assert select.select([number], [], [], 30)[0], "the worker still runs"
    os.close(number)
