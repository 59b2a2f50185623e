"""A connection is there for a request: one that does not come, or comes by the byte, ends. By a clock of our own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from workbench.rest.arrival import BODY_S, HEAD_S, MOST_OWING, STALL_S, ArrivalProtocol
from workbench.rest.listening import MOST_CONNECTIONS

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"


class Loop:
    """The loop's tasks, and timers that ring when they are told to."""

    def __init__(self) -> None:
        self.now_s, self._timers = 0.0, list[tuple[float, Callable[[], None], Any]]()

    def create_task(self, coroutine: Any, **options: Any) -> Any:
        return asyncio.get_running_loop().create_task(coroutine, **options)

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Any:
        handle = asyncio.Handle(callback, (), asyncio.get_running_loop())
        self._timers.append((self.now_s + delay_s, callback, handle))
        return handle

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        due = sorted((t for t in self._timers if t[0] <= self.now_s), key=lambda timer: timer[0])
        self._timers = [t for t in self._timers if t[0] > self.now_s]
        for _, callback, handle in due:
            if not handle.cancelled():
                callback()


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent, self.closed, self.is_aborted, self.unsent = b"", False, False, 0

    def write(self, data: Any) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.is_aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Scene:
    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.loop, self.wire = Loop(), Wire()
        self._config = uvicorn.Config(self._app, http=ArrivalProtocol, ws="none", interface="asgi3", log_config=None)
        self._state = ServerState()
        self.protocol = self.connect(self.wire)

    def connect(self, wire: Wire) -> ArrivalProtocol:
        protocol = ArrivalProtocol(self._config, self._state, {}, self.loop)
        protocol.connection_made(wire)
        return protocol

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            while (await receive()).get("more_body"):
                pass
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def answers(self, number: int) -> None:
        self.go.set()
        for _ in range(1000):
            await asyncio.sleep(0)
        assert self.wire.sent.count(b"200 OK") == number, self.wire.sent

    def by_the_byte(self, data: bytes, *, every_s: float) -> None:
        for byte in data:
            if self.wire.closed:
                return
            self.protocol.data_received(bytes([byte]))
            self.loop.advance(every_s)


def play(scene: Callable[[Scene], Awaitable[None]]) -> None:
    async def run() -> None:
        await scene(Scene())

    asyncio.run(run())


@pytest.mark.parametrize("data", [b"", b"GET", HEAD[:-2]])
def test_a_head_that_does_not_come_ends_the_connection(data: bytes) -> None:
    async def scene(it: Scene) -> None:
        if data:
            it.protocol.data_received(data)
        it.loop.advance(HEAD_S - 1)
        assert not it.wire.closed
        it.loop.advance(1)
        assert it.wire.closed

    play(scene)


def test_a_byte_now_and_then_does_not_put_the_end_off() -> None:
    async def scene(it: Scene) -> None:
        it.by_the_byte(HEAD, every_s=1.0)
        assert it.wire.closed
        assert it.loop.now_s == HEAD_S

    play(scene)


def test_the_next_head_on_a_connection_that_was_answered_has_as_long() -> None:
    async def scene(it: Scene) -> None:
        it.protocol.data_received(HEAD)
        await it.answers(1)
        assert not it.wire.closed
        it.by_the_byte(HEAD, every_s=1.0)
        assert it.wire.closed
        assert it.loop.now_s == HEAD_S

    play(scene)


def test_a_request_that_is_worked_on_or_followed_by_others_is_not_ended() -> None:
    async def scene(it: Scene) -> None:
        it.protocol.data_received(HEAD)
        it.loop.advance(HEAD_S + BODY_S + 1000)
        assert not it.wire.closed
        for number in range(1, 5):
            await it.answers(number)
            it.loop.advance(4)
            it.protocol.data_received(HEAD)
        await it.answers(5)
        it.protocol.data_received(HEAD + HEAD)  # pipelined
        await it.answers(7)
        it.loop.advance(4.9)
        assert not it.wire.closed
        it.loop.advance(0.1)
        assert it.wire.closed, "uvicorn's own: silent after an answer"

    play(scene)


def test_a_body_that_does_not_come_ends_the_connection_later() -> None:
    async def scene(it: Scene) -> None:
        it.loop.advance(HEAD_S - 1)
        it.protocol.data_received(POST + b"ab")
        it.loop.advance(BODY_S - 1)
        assert not it.wire.closed
        it.loop.advance(1)
        assert it.wire.closed

    play(scene)


def test_a_body_that_comes_in_time_is_waited_for_and_answered() -> None:
    async def scene(it: Scene) -> None:
        it.protocol.data_received(POST)
        it.by_the_byte(b"abcd", every_s=BODY_S / 5)
        it.loop.advance(BODY_S)
        assert not it.wire.closed
        await it.answers(1)

    play(scene)


def test_a_body_that_trickles_on_after_its_answer_does_not_hold_the_connection() -> None:
    async def scene(it: Scene) -> None:
        it.protocol.data_received(POST.replace(b"POST", b"GET").replace(b"4", b"400"))
        await it.answers(1)
        it.by_the_byte(b"x" * 400, every_s=1.0)
        assert it.wire.closed
        assert it.loop.now_s == HEAD_S

    play(scene)


def test_an_answer_that_is_not_taken_ends_the_connection_and_a_slow_taker_is_left_alone() -> None:
    async def scene(it: Scene) -> None:
        it.protocol.data_received(HEAD)
        it.wire.unsent = 100
        await it.answers(1)
        for _ in range(20):
            it.loop.advance(STALL_S - 1)
            assert not it.wire.is_aborted
            it.wire.unsent -= 1
            it.loop.advance(1)
        it.loop.advance(STALL_S)
        assert it.wire.is_aborted

    play(scene)


def test_a_reader_that_stops_in_the_middle_of_an_answer_is_ended() -> None:
    async def scene(it: Scene) -> None:
        it.protocol.data_received(HEAD)
        it.wire.unsent = 100
        it.protocol.pause_writing()
        it.loop.advance(STALL_S - 1)
        assert not it.wire.closed
        it.loop.advance(1)
        assert it.wire.is_aborted
        it.protocol.connection_lost(None)
        it.go.set()

    play(scene)


@pytest.mark.parametrize("data", [b"", HEAD[:-2], POST + b"ab"])
def test_of_too_many_that_owe_something_the_oldest_gives_way(data: bytes) -> None:
    async def scene(it: Scene) -> None:
        it.protocol.data_received(HEAD)  # it has sent all: it owes nothing, however old it is
        wires = [Wire() for _ in range(MOST_OWING + 2)]
        for wire in wires:
            it.loop.advance(0.01)
            protocol = it.connect(wire)
            if data:
                protocol.data_received(data)
        assert [wire.closed for wire in wires] == [True, True] + [False] * MOST_OWING
        await it.answers(1)

    play(scene)


def test_a_connection_that_is_gone_leaves_no_timer_behind() -> None:
    async def scene(it: Scene) -> None:
        it.protocol.data_received(b"GET")
        it.protocol.connection_lost(ConnectionResetError())
        it.wire.closed = False
        it.loop.advance(HEAD_S)
        assert not it.wire.closed

    play(scene)


SERVER = """
import sys
from workbench.rest import arrival, listening
arrival.ArrivalProtocol.head_s = float(sys.argv[2])
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while scope["method"] == "POST" and (await receive()).get("more_body"):
        pass
    body = b"ok" * (5 << 19 if scope["path"] == "/large" else 1)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
listener = listening.listen("127.0.0.1", 0)
listening.MOST_CONNECTIONS = int(sys.argv[1])
said = listening.address(listener, "127.0.0.1")
listening.serve_on(listener, app, said, out=sys.stdout, lifespan="off")
"""


@contextlib.contextmanager
def serving(most: int = MOST_CONNECTIONS, head_s: float = HEAD_S) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-c", SERVER, str(most), str(head_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            host, _, port = server.stdout.readline().strip().removeprefix("http://").partition(":")
            yield host, int(port)
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=30)


def test_sockets_that_send_half_a_head_do_not_keep_others_out() -> None:
    with serving(most=8, head_s=0.2) as address, contextlib.ExitStack() as open_sockets:
        slow = [open_sockets.enter_context(socket.create_connection(address, timeout=60)) for _ in range(12)]
        for connection in slow:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        for connection in slow:
            assert connection.recv(1) == b"", "ended by the server, unanswered"
        with socket.create_connection(address, timeout=60) as connection:
            connection.sendall(HEAD)
            assert connection.recv(64).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"", b"GET / HT", POST + b"ab", HEAD.replace(b"GET /", b"GET /large")])
def test_three_hundred_that_owe_something_keep_no_honest_client_out(sent: bytes) -> None:
    with serving(head_s=600.0) as address, contextlib.ExitStack() as open_sockets:
        for _ in range(300):
            connection = open_sockets.enter_context(socket.create_connection(address, timeout=60))
            connection.sendall(sent)
        for _ in range(3):
            with socket.create_connection(address, timeout=60) as honest:
                honest.sendall(HEAD)
                assert honest.recv(64).startswith(b"HTTP/1.1 200")


def test_every_server_of_ours_is_served_so() -> None:
    assert MOST_CONNECTIONS == 256
    rooms = Path(__file__).parents[2] / "workbench"
    starting = {str(path.relative_to(rooms)) for path in rooms.rglob("*.py") if "uvicorn." in path.read_text()}
    assert starting == {"rest/arrival.py", "rest/listening.py"}
