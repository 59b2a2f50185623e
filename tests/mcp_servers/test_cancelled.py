"""A call that nobody waits for any more ends: in both protocol eras, over every transport, at work and in line.

This file is also the server that is called over stdio and HTTP: ``python test_cancelled.py stdio|http``.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

from workbench.domain.generation import Generation, Prompt, Sampling
from workbench.domain.ids import ObjectId
from workbench.inference.queue import FairQueue
from workbench.mcp_servers.runner import build_server, http_app
from workbench.ports.call import Call
from workbench.rest.listening import address, listen, serve_on
from workbench.runner.contract import find_tools
from workbench.runner.services import VersionServices
from workbench.runner.version import AgentSnapshot
from workbench.sdk import model, tool
from workbench.state.document import PinnedRelease, StateDocument


class Happened:
    """What happened, in order; one can wait for it."""

    def __init__(self) -> None:
        self._events: list[str] = []
        self._changed = threading.Condition()

    def add(self, event: str) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def until(self, event: str) -> list[str]:
        with self._changed:
            assert self._changed.wait_for(lambda: event in self._events, 60), f"{event!r} did not happen"
            return list(self._events)


class Held:
    """A model that is at work on "held" until it is given up, and answers anything else at once."""

    def __init__(self, happened: Happened) -> None:
        self._happened, self._queue = happened, FairQueue()

    def generate(self, prompt: Prompt, sampling: Sampling, *, call: Call) -> Generation:
        with self._queue.turn(call):
            self._happened.add(f"{prompt.text} began")
            while prompt.text == "held":
                call.check()
                threading.Event().wait(0.001)
        return Generation(prompt.text, (), "end", (), sampling, "")

    def close(self) -> None:
        pass


def runner() -> tuple[Any, VersionServices]:
    """A Runner with a model that can be held, and a tool that tells what happened; and its services, to be closed."""
    happened = Happened()

    @tool()
    def complete(prompt: str) -> str:
        happened.add(f"{prompt} came")
        try:
            return model.complete(prompt).text
        finally:
            happened.add(f"{prompt} ended")

    @tool()
    def until(event: str) -> list[str]:
        return happened.until(event)

    agents = ModuleType(__name__)
    vars(agents).update(complete=complete, until=until)
    state = StateDocument(release=PinnedRelease(artifact="release/rust/v1.0.0", tree="1" * 40))
    snapshot = AgentSnapshot("v1.0.0", ObjectId("2" * 40), state, find_tools([agents]))
    services = VersionServices(None, snapshot, lambda _: Held(happened))  # type: ignore[arg-type,return-value]
    return build_server(snapshot, services), services


@asynccontextmanager
async def connected(transport: str, mode: str) -> AsyncIterator[Any]:
    if transport == "memory":
        server, services = runner()
        try:
            async with Client(server, mode=mode) as client:
                yield client
        finally:
            services.close()
    elif transport == "stdio":
        async with Client(StdioServerParameters(command=sys.executable, args=[__file__, "stdio"]), mode=mode) as client:
            yield client
    else:
        with subprocess.Popen([sys.executable, __file__, "http"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                async with Client(process.stdout.readline().strip(), mode=mode) as client:
                    yield client
            finally:
                process.kill()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("transport", ["memory", "stdio", "http"])
def test_a_cancelled_call_ends_and_one_that_waits_in_line_never_starts(transport: str, mode: str) -> None:
    async def talk() -> None:
        async with connected(transport, mode) as client:

            async def until(event: str) -> list[str]:
                answer = await client.call_tool("until", {"event": event})
                assert not answer.is_error, answer.content
                return list(answer.structured_content["result"])

            async def call(prompt: str, scope: anyio.CancelScope) -> None:
                with scope:
                    await client.call_tool("complete", {"prompt": prompt})

            async with anyio.create_task_group() as group:
                at_work, in_line = anyio.CancelScope(), anyio.CancelScope()
                group.start_soon(call, "held", at_work)
                await until("held began")
                group.start_soon(call, "second", in_line)
                await until("second came")
                in_line.cancel()
                assert "held ended" not in await until("second ended")
                at_work.cancel()
                await until("held ended")
            answer = await client.call_tool("complete", {"prompt": "third"})
            assert answer.structured_content["result"] == "third"
            assert [event for event in await until("third ended") if event.endswith("began")] == [
                "held began",
                "third began",
            ]

    anyio.run(talk)


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        runner()[0].run("stdio")
    else:
        listener = listen("127.0.0.1", 0)
        serve_on(listener, http_app(runner()[0], "127.0.0.1"), f"{address(listener, '127.0.0.1')}/mcp", out=sys.stdout)
