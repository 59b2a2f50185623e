"""Tools that print, exit, panic or hang, and pages of other sites: the server goes on and ends when it is asked to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError, StdioServerParameters
from starlette.testclient import TestClient

from workbench.app.agents import pin_release, serve_version
from workbench.app.template import template_files
from workbench.domain.errors import WorldError
from workbench.domain.ids import EMPTY_TREE, ZERO_ID
from workbench.domain.ledger import Action, RefMove
from workbench.domain.manifest import Manifest
from workbench.domain.refs import MAIN, Kind
from workbench.domain.version import Bump
from workbench.mcp_servers.calls import Calls
from workbench.mcp_servers.runner import MAX_ANSWER, build_server, http_app
from workbench.ports.store import Artifact
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub

WHO = "A <a@example.com>"
TOOLS = b"""
import os, subprocess, sys, time
from workbench.sdk import tool

print("while it is imported")

@tool()
def loud() -> str:
    print("on standard output")
    os.write(1, b"raw bytes\\n")
    subprocess.run(["echo", "from a child"])
    return "said"

@tool()
def leave() -> str:
    sys.exit("secret")

@tool()
def interrupt() -> str:
    raise KeyboardInterrupt("secret")

@tool()
def panic() -> str:
    class Panic(BaseException): pass
    raise Panic("secret")

@tool()
def wrong() -> int:
    return "secret"

@tool()
def endless() -> list[str]:
    return ["secret"] * 1_000_000

@tool()
def repeat(text: str, times: int) -> str:
    return text * times

@tool()
def hang() -> str:
    time.sleep(600)
    return "late"

@tool()
def word() -> str:
    from agents.words import WORD
    return WORD
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    """A hub with one version, and the release it pins."""
    folder = tmp_path_factory.mktemp("hostile")
    init_hub(folder / "hub.git")
    payload = folder / "payload"
    payload.mkdir()
    (payload / "rust-Q8_0.gguf").write_bytes(b"not opened here")
    with GitRepository(folder / "hub.git") as repository:
        files = dict(template_files()) | {"agents/hostile.py": TOOLS, "agents/words.py": b"WORD = 'one'\n"}
        tree = repository.objects.add_tree(EMPTY_TREE, files)
        start = repository.objects.add_commit(tree, parents=(), message="start\n", who=WHO, time_ms=1000)
        repository.ledger.change(Action.INIT, [RefMove(MAIN, ZERO_ID, start)], who=WHO, why="start")
        staged = repository.artifacts.stage(payload, Manifest(Kind.RELEASE, "rust"))
        artifact = repository.artifacts.publish(staged, bump=Bump.MINOR, who=WHO, why="test")
        pin_release(repository, artifact, who=WHO)
    return folder / "hub.git", artifact


@pytest.fixture(scope="module")
def hub(release: tuple[Path, Artifact]) -> Path:
    return release[0]


def command(hub: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "workbench.cli.entry", "mcp", "runner", "--repo", str(hub), *arguments]


@pytest.fixture(scope="module")
def address(hub: Path) -> Iterator[str]:
    """Over HTTP, on a port of its own choice; ended by SIGTERM within its time although a call hangs."""
    with subprocess.Popen(
        command(hub, "--http", "--port", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    ) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split(" on ")[1].strip()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)


@asynccontextmanager
async def connected(transport: str, request: pytest.FixtureRequest, mode: str) -> AsyncIterator[Any]:
    if transport == "http":
        async with Client(request.getfixturevalue("address"), mode=mode) as client:
            yield client
    else:
        program, *arguments = command(request.getfixturevalue("hub"))
        async with Client(StdioServerParameters(command=program, args=arguments), mode=mode) as client:
            yield client


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_the_server_outlives_what_its_tools_do(transport: str, mode: str, request: pytest.FixtureRequest) -> None:
    if transport == "http":
        request.getfixturevalue("address")

    async def talk() -> None:
        async with connected(transport, request, mode) as client:
            for name in ("leave", "interrupt", "panic", "wrong"):
                answer = await client.call_tool(name, {}, read_timeout_seconds=30)
                assert answer.is_error, name
                assert "secret" not in str(answer.content)
            much = await client.call_tool("endless", {}, read_timeout_seconds=30)
            assert much.is_error
            assert "are sent at most" in much.content[0].text
            with pytest.raises(MCPError, match="timed out"):
                await client.call_tool("hang", {}, read_timeout_seconds=0.2)
            said = await client.call_tool("loud", {}, read_timeout_seconds=30)
            assert said.structured_content["result"] == "said"

    anyio.run(talk)


@pytest.mark.parametrize("text", ["a", "\N{SNOWMAN}", "\N{GRINNING FACE}", '"'])
def test_the_size_of_an_answer_is_counted_in_bytes(hub: Path, text: str) -> None:
    async def ask(client: Any, times: int) -> Any:
        return await client.call_tool("repeat", {"text": text, "times": times})

    async def talk(repository: GitRepository) -> None:
        async with Client(build_server(*serve_version(repository, "active"))) as client:
            each = len(json.dumps(text, ensure_ascii=False).encode()) - 2
            short = await ask(client, 1)
            around = (
                len(json.dumps(short.structured_content, ensure_ascii=False, separators=(",", ":")).encode()) - each
            )
            times = (MAX_ANSWER - around) // each
            assert len((await ask(client, times)).structured_content["result"]) == times
            much = await ask(client, times + 1)
            assert much.is_error
            assert f"has {around + each * (times + 1)} bytes" in much.content[0].text

    with GitRepository(hub) as repository:
        anyio.run(talk, repository)


def test_a_call_that_hangs_does_not_keep_a_server_whose_editor_has_gone(hub: Path) -> None:
    start = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    messages: list[dict[str, Any]] = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": start},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "hang", "arguments": {}}},
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "word", "arguments": {}}},
    ]
    with subprocess.Popen(
        command(hub), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write("".join(json.dumps(message) + "\n" for message in messages))
        server.stdin.flush()
        answers = [json.loads(server.stdout.readline()) for _ in range(2)]  # what is printed would be no JSON
        assert [answer["id"] for answer in answers] == [1, 3]
        server.stdin.close()
        try:
            assert server.wait(20) == 0
        finally:
            server.kill()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "192.0.2.7"])
def test_other_sites_and_rebound_names_are_refused_on_whatever_address_it_listens(hub: Path, host: str) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    with GitRepository(hub) as repository:
        snapshot, services = serve_version(repository, "active")
        app = http_app(build_server(snapshot, services), host)
        with TestClient(app, base_url="http://127.0.0.1:8000") as client:

            def status(**headers: str) -> int:
                accept = {"accept": "application/json, text/event-stream"}
                return client.post("/mcp", json=call, headers={**accept, **headers}).status_code

            own = [{}, {"origin": "http://localhost:3000"}, {"host": "localhost:1"}, {"host": "[::1]:8000"}]
            assert not {status(**headers) for headers in own} & {421, 403}
            assert (status(host="192.0.2.7:80") == 421) == (host != "192.0.2.7")
            for name in ("evil.example", "evil.example:8000", "localhost.evil.example:8000", "0.0.0.0:8000"):
                assert status(host=name) == 421
            for origin in ("http://evil.example", "null", "http://localhost.evil.example:80", "file://"):
                assert status(origin=origin) == 403


def test_a_server_keeps_its_version_when_active_moves_and_its_tag_goes(release: tuple[Path, Artifact]) -> None:
    async def answer(client: Any) -> tuple[str, str]:
        content = (await client.call_tool("word", {})).structured_content
        return content["result"], content["version"]

    async def talk(repository: GitRepository) -> None:
        snapshot, services = serve_version(repository, "active")
        async with Client(build_server(snapshot, services)) as old:
            assert await answer(old) == ("one", "v1.0.0")
            main = repository.refs.get(str(MAIN))
            assert main is not None
            changed = {"agents/words.py": b"WORD = 'two'\n"}
            tree = repository.objects.add_tree(repository.objects.commit(main).tree, changed)
            moved = repository.objects.add_commit(tree, parents=(main,), message="two\n", who=WHO, time_ms=2000)
            repository.refs.swap([RefMove(MAIN, main, moved)])
            pin_release(repository, release[1], who=WHO)
            tag = repository.refs.get("refs/tags/v1.0.0")
            assert tag is not None
            repository.refs.swap([RefMove.named("refs/tags/v1.0.0", tag, ZERO_ID)])
            async with Client(build_server(*serve_version(repository, "active"))) as new:
                assert await answer(new) == ("two", "v1.0.1")
                assert await answer(old) == ("one", "v1.0.0")

    with GitRepository(release[0]) as repository:
        anyio.run(talk, repository)


def test_calls_are_bounded_and_a_place_is_free_again_when_one_ends() -> None:
    async def talk() -> None:
        calls, go = Calls(limit=1), threading.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(calls.run, lambda _: go.wait())
            await anyio.lowlevel.checkpoint()
            with pytest.raises(WorldError, match="1 calls are running"):
                await calls.run(lambda _: 1)
            go.set()
        assert await calls.run(lambda _: 2) == 2

    anyio.run(talk)


def test_a_call_for_which_there_is_no_thread_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def talk() -> None:
        calls = Calls(limit=1)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", none)
            with pytest.raises(WorldError, match="no thread is to be had"):
                await calls.run(lambda _: 1)
        assert await calls.run(lambda _: 2) == 2

    anyio.run(talk)
