"""Who takes the connections of the policy process: nobody waits while a thread is free, nobody stays unanswered."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from workbench.hub.reception import FREE, MOST_FREE, Reception
from workbench.hub.wire import BEAT_S, Answer

MANY = 60  # more than the queue of connections that were not taken yet would hold with one slow thread


class Desk:
    """A reception whose conversations end when they are told to."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "policy.sock")
        self.may_end = threading.Event()
        self.is_sound = True
        self.fails = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self.reception = Reception(self._listener, self._converse, lambda: self.is_sound)

    def _converse(self, connection: socket.socket, answer: Answer) -> None:
        if self.fails:
            raise MemoryError
        self.may_end.wait(30)
        answer.end(True)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(self.path)
        return client

    def end(self) -> None:
        self.may_end.set()
        self.reception.close()
        self.reception.finish()
        self._listener.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.reception.open()
    yield made
    made.end()


def num_threads() -> int:
    return sum(thread.name == "push" for thread in threading.enumerate())


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    return holds()


def rest(client: socket.socket) -> bytes:
    data = b""
    while part := client.recv(100):
        data += part
    return data


def test_nobody_waits_for_those_who_take_long_and_few_threads_stay(desk: Desk) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(desk.connect()) for _ in range(MANY)]
        assert eventually(lambda: num_threads() >= MANY + FREE), "each conversation has a thread, and some are free"
        desk.may_end.set()
        assert [rest(client) for client in clients] == [b"\x000"] * MANY
    assert eventually(lambda: not desk.reception.is_busy)
    assert eventually(lambda: FREE <= num_threads() <= MOST_FREE)
    with desk.connect() as client:
        assert rest(client) == b"\x000", "those that stayed go on"


def test_who_is_connected_when_it_closes_is_answered_and_nobody_comes_after_that(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    with ExitStack() as stack:
        clients = [stack.enter_context(desk.connect()) for _ in range(10)]  # in the queue: no thread is there yet
        desk.reception.open()
        desk.reception.close()
        with pytest.raises(ConnectionRefusedError):
            stack.enter_context(desk.connect())
        desk.may_end.set()
        assert [rest(client) for client in clients] == [b"\x000"] * 10
    desk.end()
    assert eventually(lambda: num_threads() == 0)


def test_a_conversation_that_ends_with_an_error_costs_no_thread(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.reception.open()
    desk.fails = True
    for _ in range(2 * MOST_FREE):
        with desk.connect() as client:
            assert rest(client) == b"", "without a verdict: the push is refused"
    desk.fails = False
    desk.may_end.set()
    with desk.connect() as client:
        assert rest(client) == b"\x000"
    desk.end()
    assert eventually(lambda: num_threads() == 0)


def test_a_process_that_may_not_answer_says_nothing_and_ends(desk: Desk) -> None:
    desk.is_sound = False
    waiting = threading.Thread(target=desk.reception.wait, args=(time.monotonic() + 30,))
    waiting.start()
    with desk.connect() as client:
        assert rest(client) == b"", "the client starts another process, and asks that one"
    waiting.join(5)
    assert not waiting.is_alive()
    assert desk.reception.has_ended


def test_whoever_is_answered_hears_so_also_when_the_first_came_after_a_long_quiet(desk: Desk) -> None:
    waiting = threading.Thread(target=desk.reception.wait, args=(time.monotonic() + 30 * BEAT_S,))
    waiting.start()
    time.sleep(0.1)  # it has lain down for all that time
    with desk.connect() as first, desk.connect() as second:
        assert (first.recv(1), second.recv(1)) == (b"\1", b"\1")
    desk.is_sound = False
    with desk.connect() as last:
        assert rest(last) == b""
    waiting.join()


def test_it_waits_no_longer_than_it_should(desk: Desk) -> None:
    began = time.monotonic()
    desk.reception.wait(began + 0.2)
    assert 0.2 <= time.monotonic() - began < 5
    desk.reception.wait(began)  # that is over


SHORT_OF_FILES = """
import os, socket, sys, threading, time
from workbench.hub.reception import Reception
def converse(connection, answer):
    time.sleep(0.5)
    answer.end(True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(64)
reception = Reception(listener, converse, lambda: True)
reception.open()
print("open", flush=True)
sys.stdin.read()
reception.close()
reception.finish()
"""


def test_who_comes_while_no_more_files_can_be_opened_waits_and_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "policy.sock"
    few = 12
    with (
        subprocess.Popen(
            [sys.executable, "-c", SHORT_OF_FILES, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        ExitStack() as stack,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (few, few))
        clients = []
        for _ in range(2 * few):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(20)
            client.connect(str(path))
            clients.append(client)
        assert [rest(client) for client in clients] == [b"\x000"] * len(clients)
        said = process.communicate("", timeout=20)[1]
    assert "no connection can be taken" in said
    assert process.returncode == 0
