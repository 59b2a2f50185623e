"""The watchdog: what takes too long is ended, what does not is left alone, and one thread serves all."""

from __future__ import annotations

import os
import threading
import time

import pytest

from workbench.store.git import watchdog
from workbench.store.git.watchdog import Watchdog


def test_what_is_overdue_is_ended_once_and_what_is_in_time_never():
    dog, ended = Watchdog(), []
    with dog.bounded(30, lambda: ended.append("slow")), dog.bounded(0.05, lambda: ended.append("quick")):
        with dog.bounded(2.0, lambda: ended.append("in time")):
            pass
        deadline = time.monotonic() + 10
        while not ended and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(2.5)  # past the end of what was in time
    assert ended == ["quick"]


def test_where_there_was_no_thread_to_be_had_the_next_block_is_bounded_all_the_same(monkeypatch: pytest.MonkeyPatch):
    dog, ended = Watchdog(), threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _no_thread)
        with pytest.raises(RuntimeError), dog.bounded(0.01, lambda: pytest.fail("it never began")):
            pass
    with dog.bounded(0.05, ended.set):
        assert ended.wait(10)


def _no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_nearer_deadline_wakes_a_thread_that_sleeps_towards_a_later_one():
    dog, ended = Watchdog(), threading.Event()
    with dog.bounded(60, lambda: None):
        time.sleep(0.1)  # the thread sleeps now
        with dog.bounded(0.05, ended.set):
            assert ended.wait(10)


def test_many_blocks_of_many_threads_take_one_thread_and_leave_nothing():
    dog, before = Watchdog(), threading.active_count()
    most = []

    def ask() -> None:
        for _ in range(200):
            with dog.bounded(60, lambda: None):
                most.append(threading.active_count())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= before + len(threads) + 1
    assert not dog._due


def test_a_forked_child_has_a_watchdog_of_its_own():
    """Forked while the parent's thread sleeps and the parent's lock may be held."""
    with watchdog.WATCHDOG.bounded(60, lambda: None):
        pid = os.fork()
        if pid == 0:
            ended = threading.Event()
            with watchdog.WATCHDOG.bounded(0.05, ended.set):
                os._exit(0 if ended.wait(10) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
