"""The mapper: same results in the same order, whatever the number of workers; errors and deaths are told."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from itertools import count, islice

import pytest

from workbench.domain.errors import StageFailed
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


def test_a_worker_that_dies_is_told_with_what_to_do() -> None:
    with pytest.raises(StageFailed, match="a worker process died while mapping die_at_five") as caught:
        list(ProcessMapper(2).map(die_at_five, range(10)))
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
