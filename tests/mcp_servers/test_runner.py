"""The Runner's MCP server, called by a real client in both protocol eras, in memory, over stdio and over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError, StdioServerParameters

from workbench.app.agents import pin_release, serve_version
from workbench.app.template import template_files
from workbench.domain.ids import EMPTY_TREE, ZERO_ID
from workbench.domain.ledger import Action, RefMove
from workbench.domain.manifest import Manifest
from workbench.domain.refs import MAIN, Kind
from workbench.domain.version import Bump
from workbench.mcp_servers.runner import build_server
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub

WHO = "A <a@example.com>"
HELLO = b"""from workbench.sdk import tool

@tool(title="Greet")
def hello(name: str) -> str:
    "Greet somebody."
    return "%s, " + name

@tool()
def crash() -> str:
    "Fail."
    raise RuntimeError("secret")
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub with two versions whose tool ``hello`` answers differently."""
    folder = tmp_path_factory.mktemp("mcp")
    init_hub(folder / "hub.git")
    payload = folder / "payload"
    payload.mkdir()
    (payload / "rust-Q8_0.gguf").write_bytes(b"not opened here")
    with GitRepository(folder / "hub.git") as repository:
        files = dict(template_files()) | {"agents/hello.py": HELLO % b"Hello"}
        tree = repository.objects.add_tree(EMPTY_TREE, files)
        start = repository.objects.add_commit(tree, parents=(), message="start\n", who=WHO, time_ms=1000)
        repository.ledger.change(Action.INIT, [RefMove(MAIN, ZERO_ID, start)], who=WHO, why="start")
        staged = repository.artifacts.stage(payload, Manifest(Kind.RELEASE, "rust"))
        release = repository.artifacts.publish(staged, bump=Bump.MINOR, who=WHO, why="test")
        first = pin_release(repository, release, who=WHO)
        tree = repository.objects.add_tree(
            repository.objects.commit(first.commit).tree, {"agents/hello.py": HELLO % b"Ahoy"}
        )
        second = repository.objects.add_commit(
            tree, parents=(first.commit,), message="ahoy\n", who=WHO, time_ms=9_000_000_000
        )
        repository.refs.swap([RefMove(MAIN, first.commit, second)])
        pin_release(repository, release, who=WHO)
    return folder / "hub.git"


def command(hub: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "workbench.cli.entry", "mcp", "runner", "--repo", str(hub), *arguments]


@asynccontextmanager
async def in_memory(hub: Path, version: str, mode: str) -> AsyncIterator[Any]:
    with GitRepository(hub) as repository:
        snapshot, services = serve_version(repository, version)
        async with Client(build_server(snapshot, services), mode=mode) as client:
            yield client


@asynccontextmanager
async def over_stdio(hub: Path, version: str, mode: str) -> AsyncIterator[Any]:
    program, *arguments = command(hub, "--version", version)
    async with Client(StdioServerParameters(command=program, args=arguments), mode=mode) as client:
        yield client


@asynccontextmanager
async def over_http(hub: Path, version: str, mode: str) -> AsyncIterator[Any]:
    with subprocess.Popen(
        command(hub, "--version", version, "--http", "--port", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    ) as server:
        assert server.stdout is not None
        try:
            address = server.stdout.readline().split(" on ")[1].strip()  # said when it listens
            async with Client(address, mode=mode) as client:
                yield client
        finally:
            server.terminate()
            server.wait(20)


TRANSPORTS = {"memory": in_memory, "stdio": over_stdio, "http": over_http}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_tool_answers_with_its_version_over(transport: str, mode: str, hub: Path) -> None:
    async def talk() -> None:
        async with TRANSPORTS[transport](hub, "active", mode) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools) == {"complete", "crash", "fill_in_middle", "hello", "search"}
            assert tools["search"].input_schema["properties"]["limit"]["maximum"] == 1000
            assert set(tools["hello"].output_schema["required"]) == {"result", "version", "release", "trace_id"}
            answer = await client.call_tool("hello", {"name": "you"})
            assert not answer.is_error, answer
            content = answer.structured_content
            assert content["result"] == "Ahoy, you"
            assert (content["version"], content["release"]) == ("v1.0.1", "release/rust/v1.0.0")
            assert len(content["trace_id"]) == 32
            assert set(content["trace_id"]) != {"0"}
            found = await client.call_tool("search", {"pattern": "$X.unwrap()", "source": "fn f() { a().unwrap(); }"})
            assert found.structured_content["result"]["outcome"] == "matched"

    anyio.run(talk)


def test_two_versions_at_once_give_two_answers(hub: Path) -> None:
    async def talk() -> None:
        async with in_memory(hub, "v1.0.0", "auto") as old, in_memory(hub, "v1.0.1", "auto") as new:
            answers = [await client.call_tool("hello", {"name": "you"}) for client in (old, new, old)]
            assert [a.structured_content["result"] for a in answers] == ["Hello, you", "Ahoy, you", "Hello, you"]
            assert [a.structured_content["version"] for a in answers] == ["v1.0.0", "v1.0.1", "v1.0.0"]

    anyio.run(talk)


def test_a_search_without_source_looks_at_the_files_of_its_version(hub: Path) -> None:
    async def talk() -> None:
        async with in_memory(hub, "v1.0.0", "auto") as client:
            arguments = {"pattern": "tool($$$)", "language": "python"}
            found = (await client.call_tool("search", arguments)).structured_content["result"]
            assert {m["path"] for m in found["matches"]} == {"agents/hello.py", "agents/runner.py"}

    anyio.run(talk)


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("crash", {}, "Error executing tool crash"),
        ("complete", {}, "prompt"),
        ("complete", {"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ("complete", {"prompt": "fn main"}, "rust-Q8_0.gguf"),
        ("no_such_tool", {}, "no_such_tool"),
    ],
)
def test_a_failure_is_told_without_secrets(hub: Path, tool: str, arguments: dict[str, Any], says: str) -> None:
    async def talk() -> None:
        async with in_memory(hub, "active", "auto") as client:
            answer = await client.call_tool(tool, arguments)
            assert answer.is_error
            assert says in answer.content[0].text
            assert "secret" not in answer.content[0].text

    anyio.run(talk)


def test_an_unknown_version_is_an_error_that_names_the_nearest(hub: Path) -> None:
    done = subprocess.run(command(hub, "--version", "v1.0.9"), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 4
    assert "v1.0.1" in done.stderr


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_state_and_contract_are_read_as_resources(hub: Path, mode: str) -> None:
    async def talk() -> None:
        async with in_memory(hub, "v1.0.0", mode) as client:
            assert {str(each.uri) for each in (await client.list_resources()).resources} == {
                "state://active",
                "version://current",
            }
            state = json.loads((await client.read_resource("state://active")).contents[0].text)
            assert state["release"]["artifact"] == "release/rust/v1.0.0"
            current = json.loads((await client.read_resource("version://current")).contents[0].text)
            assert current["version"] == "v1.0.0"
            assert set(current["contract"]["tools"]) == {"complete", "crash", "fill_in_middle", "hello", "search"}
            with pytest.raises(MCPError):
                await client.read_resource("state://../../etc/passwd")

    anyio.run(talk)
