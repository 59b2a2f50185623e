"""ast-grep in a process of its own: its crash, its hang and its hunger are outcomes, and the next request finds it."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.refactor.process import Grammars
from workbench.refactor.search import search

SOURCE = "fn a() { x().unwrap(); }\n"


@pytest.fixture
def grammars() -> Iterator[Grammars]:
    made = Grammars(patience_s=30.0)
    yield made
    made.close()


def child(grammars: Grammars) -> int:
    assert grammars.pid is not None
    return grammars.pid


def find(grammars: Grammars, text: str = SOURCE) -> list[int]:
    return [match["line"] for match in grammars.find(text, "$X.unwrap()", "rust", 9, path="a.rs")]


def stopped_at_work(grammars: Grammars) -> int:
    """Its process, which does not answer the next request before it is continued."""
    assert find(grammars) == [1]
    pid = child(grammars)
    os.kill(pid, signal.SIGSTOP)
    return pid


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_is_an_outcome_that_names_the_text_and_the_next_search_works(
    grammars: Grammars, number: signal.Signals
) -> None:
    pid = stopped_at_work(grammars)
    threading.Timer(2.0, lambda: (os.kill(pid, number), os.kill(pid, signal.SIGCONT))).start()
    found = search([("a.rs", SOURCE)], "$X.unwrap()", language="rust", grammars=grammars)
    assert found.outcome == "engine_error"
    assert number.name in found.detail
    again = search([("a.rs", SOURCE)], "$X.unwrap()", language="rust", grammars=grammars)
    assert again.outcome == "matched"
    assert child(grammars) != pid


def test_a_crash_on_a_text_names_that_text(grammars: Grammars) -> None:
    def sources() -> Iterator[tuple[str, str]]:
        yield "a.rs", SOURCE
        pid = stopped_at_work(grammars)
        threading.Timer(2.0, lambda: (os.kill(pid, signal.SIGSEGV), os.kill(pid, signal.SIGCONT))).start()
        yield "b.rs", SOURCE

    found = search(sources(), "$X.unwrap()", language="rust", grammars=grammars)
    assert found.outcome == "engine_error"
    assert found.detail == "ast-grep in a search crashed (SIGSEGV) on b.rs"
    assert found.files_searched == 2


def test_a_text_that_it_does_not_come_to_an_end_with_is_a_timeout() -> None:
    impatient = Grammars(patience_s=5.0)
    pid = stopped_at_work(impatient)
    found = search([("a.rs", SOURCE)], "$X.unwrap()", language="rust", grammars=impatient)
    assert found.outcome == "timeout"
    assert not Path(f"/proc/{pid}").exists()
    impatient.close()


def test_a_limit_of_memory_is_an_outcome(grammars: Grammars) -> None:
    assert find(grammars) == [1]
    resource.prlimit(child(grammars), resource.RLIMIT_AS, (1 << 20, 1 << 20))
    found = search([("a.rs", "fn a() { b }\n" * 100_000)], "$X.unwrap()", language="rust", grammars=grammars)
    assert found.outcome == "engine_error"
    assert "ran out of memory" in found.detail


def test_many_threads_may_ask_at_once(grammars: Grammars) -> None:
    answers: dict[int, list[int]] = {}

    def ask(number: int) -> None:
        answers[number] = find(grammars, "\n" * number + SOURCE)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: [number + 1] for number in range(8)}


def test_it_ends_when_it_is_closed_and_is_started_by_the_next_request(grammars: Grammars) -> None:
    assert find(grammars) == [1]
    pid = child(grammars)
    grammars.close()
    assert not Path(f"/proc/{pid}").exists()
    assert find(grammars) == [1]
