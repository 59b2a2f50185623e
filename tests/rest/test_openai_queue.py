"""Many who ask one model, and a model that crashes, hangs or is given up: the application over a real model process,
which is stopped to hold it. No sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from workbench.domain.errors import WorldError
from workbench.inference.process import ProcessLoader, ProcessModel
from workbench.rest.openai import create_app

RELEASE = "release/x/v1.0.0"


@pytest.fixture
def model(tiny: Any) -> Iterator[ProcessModel]:
    loader = ProcessLoader(patience_s=60, max_waiting=3, max_waiting_of_one=2)
    with loader.load(tiny.q8, threads=1) as model:
        yield model


@contextlib.contextmanager
def held(model: ProcessModel) -> Iterator[int]:
    """The process does not go on meanwhile."""
    pid = model.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def asking(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.002)


def ask(client: httpx.AsyncClient, user: str = "", **body: Any) -> asyncio.Task[httpx.Response]:
    given = {"prompt": "let", "max_tokens": 2, "user": user, **body}
    return asyncio.create_task(client.post("/v1/completions", json=given, timeout=60))


def test_a_full_queue_answers_429_and_when_to_come_back(model: ProcessModel) -> None:
    async def scene() -> None:
        async with asking(create_app(model, RELEASE)) as client:
            with held(model):
                asked = []
                for number, user in enumerate("aaab", 1):
                    asked.append(ask(client, user))
                    await until(lambda number=number: model.taken == number)  # type: ignore[misc]
                for late in (ask(client, "c"), ask(client, "c", stream=True)):
                    refused = await late
                    assert refused.status_code == 429
                    assert refused.headers["retry-after"] == "1"
                    assert refused.json()["error"]["code"] == "busy"
                assert (await client.get("/health")).json()["taken"] == 4
            assert [(await answer).status_code for answer in asked] == [200] * 4
            assert (await client.get("/health")).json()["taken"] == 0

    asyncio.run(scene())


def test_one_client_s_flood_does_not_make_another_wait_for_all_of_it(model: ProcessModel) -> None:
    async def scene() -> None:
        done: list[str] = []
        async with asking(create_app(model, RELEASE)) as client:
            with held(model):
                asked = []
                for number, user in enumerate("aaab", 1):
                    asked.append(ask(client, user))
                    asked[-1].add_done_callback(lambda _, user=user: done.append(user))  # type: ignore[misc]
                    await until(lambda number=number: model.taken == number)  # type: ignore[misc]
            await asyncio.gather(*asked)
        assert "".join(done) == "abaa"

    asyncio.run(scene())


async def at_work(model: ProcessModel) -> asyncio.Task[Any]:
    """A call that keeps the library at work for long."""
    assert model.pid is not None
    before_s = cpu_s(model.pid)
    asked = asyncio.create_task(asyncio.to_thread(model.tokenize, "\t\n" * 100_000))
    await until(lambda: cpu_s(model.pid or 0) > before_s + 0.3)
    return asked


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_crash_harms_whoever_was_at_work_and_those_in_line_are_answered(model: ProcessModel) -> None:
    async def scene() -> None:
        async with asking(create_app(model, RELEASE)) as client:
            unlucky = await at_work(model)
            asked = [ask(client), ask(client, "b", stream=True)]
            await until(lambda: model.taken == 3)
            assert model.pid is not None
            os.kill(model.pid, signal.SIGSEGV)
            with pytest.raises(WorldError, match="SIGSEGV"):
                await unlucky
            assert [(await one).status_code for one in asked] == [200, 200]

    asyncio.run(scene())


@pytest.mark.parametrize("stream", [True, False])
def test_a_model_that_hangs_is_a_500_that_says_so_and_the_next_is_answered(tiny: Any, stream: bool) -> None:
    async def scene() -> None:
        with ProcessLoader(patience_s=8).load(tiny.q8, threads=1) as model:
            async with asking(create_app(model, RELEASE)) as client:
                with held(model):
                    answer = await ask(client, stream=stream)
                assert answer.status_code == 500
                assert answer.json()["error"]["code"] == "nativecrash"
                assert "llama.cpp in generate gave no answer in time" in answer.json()["error"]["message"]
                assert (await client.get("/health")).json()["taken"] == 0
                assert (await ask(client, stream=stream)).status_code == 200

    asyncio.run(scene())


class Faulty:
    """A model with a bug of ours."""

    def generate(self, *_: Any, **__: Any) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("stream", [True, False])
def test_a_bug_is_a_500_in_the_same_shape(stream: bool) -> None:
    async def scene() -> None:
        async with asking(create_app(Faulty(), RELEASE)) as client:  # type: ignore[arg-type]
            answer = await ask(client, stream=stream)
            assert answer.status_code == 500
            assert answer.json()["error"]["code"] == "bug"
            assert (await client.get("/health")).json()["taken"] == 0

    asyncio.run(scene())


def test_a_request_that_does_not_arrive_is_given_up(model: ProcessModel) -> None:
    async def scene() -> None:
        sent: list[dict[str, Any]] = []
        parts = [{"type": "http.request", "body": b'{"prompt": "x', "more_body": True}]

        async def receive() -> dict[str, Any]:
            return parts.pop() if parts else await asyncio.Event().wait()  # type: ignore[return-value]

        async def send(message: Any) -> None:
            sent.append(dict(message))

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers, "query_string": b""}
        await create_app(model, RELEASE, body_s=0.01)(scope, receive, send)
        assert sent[0]["status"] == 408

    asyncio.run(scene())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("place", ["at work", "in line"])
def test_a_client_that_goes_away_frees_its_place(model: ProcessModel, stream: bool, place: str) -> None:
    async def scene() -> None:
        app = create_app(model, RELEASE)
        leaving = asyncio.Event()
        body = json.dumps({"prompt": "x", "stream": stream, "max_tokens": 200}).encode()
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if parts:
                return parts.pop()
            await leaving.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers, "query_string": b""}
        with held(model):
            other = asyncio.create_task(asyncio.to_thread(model.tokenize, "x")) if place == "in line" else None
            before = 1 if other else 0
            await until(lambda: model.taken == before)
            answering = asyncio.create_task(app({**scope, "asgi": {"spec_version": "2.3"}}, receive, send))
            await until(lambda: model.taken == before + 1)
            leaving.set()
            await answering
            if other:
                await until(lambda: model.taken == 1)  # let go at once, whatever the model does
        if other:
            await other
        await until(lambda: model.taken == 0)
        async with asking(app) as client:
            assert (await ask(client)).status_code == 200

    asyncio.run(asyncio.wait_for(scene(), 60))


def test_a_server_that_ends_gives_up_what_is_asked(model: ProcessModel) -> None:
    async def scene() -> None:
        app = create_app(model, RELEASE)
        async with asking(app) as client:
            with held(model):
                async with app.router.lifespan_context(app):
                    asked = [ask(client, user) for user in "ab"]
                    await until(lambda: model.taken == 2)
                assert (await asked[1]).status_code == 503
                await asyncio.to_thread(model.close)
                assert (await asked[0]).status_code == 503

    asyncio.run(scene())
