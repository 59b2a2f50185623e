"""The answers of the policy process: signs of life while it works, one verdict, and nobody who makes it wait."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.hub.wire import BEAT_S, Answer


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def everything(connection: socket.socket) -> bytes:
    data = b""
    while part := connection.recv(65536):
        data += part
    return data


def test_words_beats_and_one_verdict(pair: tuple[socket.socket, socket.socket]) -> None:
    answer = Answer(pair[0])
    answer.beat()
    answer.say("a \0, a \1 and a \2\n")
    answer.moved("a run\n")
    answer.end(True, "last words\n")
    answer.say("too late\n")
    answer.beat()
    answer.end(False)
    assert everything(pair[1]) == b"\1a \\x00, a \\x01 and a \\x02\n\2a run\nlast words\n\x000"


def test_a_beat_does_not_wait_for_a_client_that_does_not_read(pair: tuple[socket.socket, socket.socket]) -> None:
    answer = Answer(pair[0])
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    began = time.monotonic()
    for _ in range(20_000):
        answer.beat()
    assert time.monotonic() - began < 5
    assert not answer.gone


def test_a_beat_to_a_client_that_has_gone_notes_it(pair: tuple[socket.socket, socket.socket]) -> None:
    answer = Answer(pair[0])
    pair[1].close()
    answer.beat()
    assert answer.gone
    answer.end(True)


SLOW_POLICY = """
import sys, time
from workbench.app import hub_host
from workbench.hub.policy_server import PolicyServer
def judge(self, request):
    time.sleep(6.5)
    raise SystemError("not a verdict")
PolicyServer._judge = judge
hub_host.main(["policy", sys.argv[1]])
"""


def test_a_policy_that_takes_long_says_so_every_second(hub: Any, tmp_path: Path) -> None:
    """To two clients at once, of which one waits for the other."""
    with open(tmp_path / "policy.log", "wb") as log:
        policy = subprocess.Popen([sys.executable, "-P", "-c", SLOW_POLICY, str(hub.path)], stderr=log)
    try:
        hub.until((hub.path / "workbench/policy.sock").exists)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        request = b"\0".join([b"2", b"pre-receive", b"1", b"", b"", b"", b"x y z\n"])
        for client in clients:
            client.settimeout(30)
            client.connect(f"/proc/{policy.pid}/cwd/workbench/policy.sock")
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
        said, gaps = [], []
        for client in clients:
            last, data = time.monotonic(), b""
            while part := client.recv(65536):
                gaps.append(time.monotonic() - last)
                last, data = time.monotonic(), data + part
            said.append(data)
            client.close()
        assert all(data.endswith(b"\x001") for data in said)
        assert [data.count(b"\1") >= 3 for data in said] == [True, True]
        assert max(gaps) < BEAT_S * 4
    finally:
        policy.kill()
        policy.wait()
