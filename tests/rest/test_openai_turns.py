"""The queue before the model: bounded, in order, free again when those who asked have gone. No sockets."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from workbench.domain.errors import WorldError
from workbench.domain.generation import Generation, Prompt, Sampling
from workbench.rest.openai import create_app
from workbench.rest.turns import Busy, Gone, Turns


class HeldModel:
    """Answers when it is let; counts."""

    context = 64

    def __init__(self) -> None:
        self.go = threading.Event()
        self.started: list[str] = []

    def generate(
        self, prompt: Prompt, sampling: Sampling, on_text: Callable[[str], None] | None = None, *, check: Any = None
    ) -> Generation:
        self.started.append(prompt.text)
        assert self.go.wait(30)
        if prompt.text == "world":
            raise WorldError("the disk is gone", "mount it")
        if prompt.text == "bug":
            raise ZeroDivisionError
        if on_text is not None:
            on_text("text")
        return Generation("text", (1,), "length", (1,), sampling, "0" * 64)


def asking(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0)


def test_a_full_queue_answers_429_and_when_to_come_back() -> None:
    async def scene() -> None:
        model = HeldModel()
        async with asking(create_app(model, "release/x/v1.0.0", max_waiting=2)) as client:  # type: ignore[arg-type]
            asked = [
                asyncio.create_task(client.post("/v1/completions", json={"prompt": str(number)})) for number in range(3)
            ]

            async def taken() -> int:
                return int((await client.get("/health")).json()["taken"])

            while await taken() < 3:
                await asyncio.sleep(0)
            refused = await client.post("/v1/completions", json={"prompt": "late"})
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["error"]["code"] == "busy"
            model.go.set()
            assert [(await answer).status_code for answer in asked] == [200, 200, 200]
            assert model.started == ["0", "1", "2"]
            assert (await client.post("/v1/completions", json={"prompt": "again"})).status_code == 200

    asyncio.run(scene())


@pytest.mark.parametrize(("prompt", "code"), [("world", "worlderror"), ("bug", "bug")])
@pytest.mark.parametrize("stream", [True, False])
def test_what_goes_wrong_in_the_model_is_a_500_in_the_same_shape(prompt: str, code: str, stream: bool) -> None:
    async def scene() -> None:
        model = HeldModel()
        model.go.set()
        async with asking(create_app(model, "release/x/v1.0.0")) as client:  # type: ignore[arg-type]
            answer = await client.post("/v1/completions", json={"prompt": prompt, "stream": stream})
            assert answer.status_code == 500
            assert answer.json()["error"]["code"] == code
            assert (await client.get("/health")).json()["taken"] == 0

    asyncio.run(scene())


def test_who_has_left_is_not_answered_and_the_next_is() -> None:
    async def scene() -> None:
        turns, go, done = Turns(max_waiting=4), threading.Event(), []

        def work(name: str) -> Callable[[Callable[[], None]], str]:
            def run(check: Callable[[], None]) -> str:
                assert go.wait(30)
                check()
                done.append(name)
                return name

            return run

        first, second, third = (turns.take(work(name)) for name in "abc")
        first.leave()
        second.leave()
        go.set()
        assert await third.result == "c"
        assert done == ["c"]
        assert isinstance(first.result.exception(), Gone)
        await until(lambda: turns.taken == 0)
        turns.close()

    asyncio.run(scene())


def test_no_more_wait_than_the_bound_allows() -> None:
    async def scene() -> None:
        turns, go = Turns(max_waiting=1), threading.Event()
        kept = [turns.take(lambda check: go.wait(30)) for _ in range(2)]
        with pytest.raises(Busy):
            turns.take(lambda check: True)
        go.set()
        assert [await turn.result for turn in kept] == [True, True]
        await until(lambda: turns.taken == 0)
        turns.close()

    asyncio.run(scene())


def test_a_request_that_does_not_arrive_is_given_up() -> None:
    async def scene() -> None:
        sent: list[dict[str, Any]] = []
        parts = [{"type": "http.request", "body": b'{"prompt": "x', "more_body": True}]

        async def receive() -> dict[str, Any]:
            return parts.pop() if parts else await asyncio.Event().wait()  # type: ignore[return-value]

        async def send(message: Any) -> None:
            sent.append(dict(message))

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers, "query_string": b""}
        app = create_app(HeldModel(), "release/x/v1.0.0", body_s=0.01)  # type: ignore[arg-type]
        await app(scope, receive, send)
        assert sent[0]["status"] == 408

    asyncio.run(scene())


class EndlessModel(HeldModel):
    """Goes on until whoever listens ends it, with text or without."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ended = threading.Event()
        self.text = text

    def generate(
        self, prompt: Prompt, sampling: Sampling, on_text: Callable[[str], None] | None = None, *, check: Any = None
    ) -> Generation:
        assert on_text is not None
        try:
            while True:
                on_text(self.text) if self.text else check()
        finally:
            self.ended.set()


@pytest.mark.parametrize(("stream", "text"), [(True, "more "), (True, ""), (False, "more "), (False, "")])
def test_a_client_that_goes_away_in_the_middle_ends_the_work_and_frees_its_place(stream: bool, text: str) -> None:
    async def scene() -> None:
        model = EndlessModel(text)
        app = create_app(model, "release/x/v1.0.0", max_waiting=0)  # type: ignore[arg-type]
        leaving = asyncio.Event()
        body = json.dumps({"prompt": "x", "stream": stream}).encode()
        parts = [{"type": "http.request", "body": body, "more_body": False}]
        heard: list[bytes] = []

        async def receive() -> dict[str, Any]:
            if parts:
                return parts.pop()
            await leaving.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            heard.append(message.get("body", b""))
            if b"more" in heard[-1]:
                leaving.set()

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers, "query_string": b""}
        answering = asyncio.create_task(app({**scope, "asgi": {"spec_version": "2.3"}}, receive, send))
        async with asking(app) as client:
            if not (stream and text):
                while not (await client.get("/health")).json()["taken"]:
                    await asyncio.sleep(0)
                leaving.set()
            await answering
            await asyncio.to_thread(model.ended.wait, 30)
            assert model.ended.is_set()
            while (await client.get("/health")).json()["taken"]:
                await asyncio.sleep(0)
        assert (b"more" in b"".join(heard)) == (stream and text != "")

    asyncio.run(asyncio.wait_for(scene(), 60))
