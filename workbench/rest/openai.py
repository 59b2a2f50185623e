"""One release under OpenAI's completions API, for editors and clients that speak it. Loopback unless told otherwise.

``/v1/models``, ``/v1/completions`` (``suffix`` is fill-in-the-middle, ``stream`` server-sent events), ``/health``. Chat
is refused: the models of this house are base models. Not here: the shapes (``openai_format``), the queue (``turns``),
who may ask (``guard``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from workbench.domain.errors import UserError, WorkbenchError
from workbench.domain.generation import Generation
from workbench.ports.inference import LoadedModel
from workbench.rest.guard import LOOPBACK, Guard, names, problem
from workbench.rest.listening import address, listen, serve_on
from workbench.rest.openai_format import CompletionRequest, Envelope, completion_id, log_probabilities, model_entry
from workbench.rest.turns import Busy, Gone, Turn, Turns

MAX_BODY_BYTES = 4 << 20
MAX_WAITING = 8
BODY_S = 30.0  # in which a body must have arrived, to be told so; ``arrival`` ends what is slower, and slow heads
Answer = tuple[Generation, dict[str, Any] | None]


def create_app(
    model: LoadedModel,
    release: str,
    *,
    hosts: Collection[str] = LOOPBACK,
    max_waiting: int = MAX_WAITING,
    body_s: float = BODY_S,
) -> Starlette:
    """The application. ``release`` is the tag that answers name; the caller closes ``model`` afterwards."""
    turns = Turns(max_waiting)
    routes = _Routes(model, release, turns, body_s)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        turns.close()

    return Starlette(
        routes=[
            Route("/health", routes.health),
            Route("/v1/models", routes.models),
            Route("/v1/models/{id:path}", routes.one_model),
            Route("/v1/completions", routes.completions, methods=["POST"]),
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={
            HTTPException: _http_problem,
            WorkbenchError: _problem,
            ClientDisconnect: _gone,
            Exception: _bug,
        },
        lifespan=lifespan,
    )


def serve(
    model: LoadedModel, release: str, *, host: str = "127.0.0.1", port: int = 8080, hosts: Collection[str] = ()
) -> None:
    """Serve until interrupted. ``port`` 0 takes a free one; the address is told on standard error once it listens.
    ``hosts`` are further names that clients may use for this machine."""
    listener = listen(host, port)
    app = create_app(model, release, hosts={*names(host), *hosts})
    said = f"{release} is served at {address(listener, host)}/v1 (Ctrl-C ends it)"
    serve_on(listener, app, said, out=sys.stderr, access_log=False, server_header=False)


class _Routes:
    def __init__(self, model: LoadedModel, release: str, turns: Turns, body_s: float) -> None:
        self._model, self._release, self._turns, self._body_s = model, release, turns, body_s

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "release": self._release, "taken": self._turns.taken})

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [model_entry(self._release)]})

    async def one_model(self, request: Request) -> Response:
        wanted = request.path_params["id"]
        return JSONResponse(model_entry(self._release)) if self._is_ours(wanted) else self._other_model(wanted)

    async def chat(self, request: Request) -> Response:
        return problem(
            400,
            f"{self._release} is a base model without a chat template: send its text to /v1/completions",
            "chat_not_supported",
        )

    async def completions(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(self._body_s):
                asked = await _read(request)
        except TimeoutError:
            return problem(408, f"the request did not arrive within {self._body_s:g} s", "too_slow")
        if isinstance(asked, Response):
            return asked
        if asked.model and not self._is_ours(asked.model):
            return self._other_model(asked.model)
        try:
            return await (self._stream(asked, request) if asked.stream else self._whole(asked, request))
        except Busy:
            message = f"{self._turns.taken} requests are answered or wait already; try again"
            return problem(429, message, "busy", retry_s=1)
        except Gone:
            return problem(503, "the server is ending", "ending", retry_s=5)

    def _is_ours(self, name: str) -> bool:
        """The release's tag, with or without its version."""
        return name in (self._release, self._release.rpartition("/")[0])

    def _other_model(self, name: str) -> Response:
        return problem(404, f"there is no model {name!r} here, only {self._release}", "model_not_found", param="model")

    def _take(self, asked: CompletionRequest, on_text: Callable[[str], None] | None = None) -> Turn[Answer]:
        def work(check: Callable[[], None]) -> Answer:
            def hear(text: str) -> None:
                check()
                if on_text is not None:
                    on_text(text)

            made = self._model.generate(asked.to_prompt(), asked.to_sampling(), hear, check=check)
            if asked.logprobs is None:
                return made, None
            check()
            return made, log_probabilities(self._model, made, asked.logprobs)

        return self._turns.take(work)

    def _envelope(self, asked: CompletionRequest) -> Envelope:
        return Envelope(self._release, completion_id(self._release, asked), int(time.time()))

    async def _whole(self, asked: CompletionRequest, request: Request) -> Response:
        turn = self._take(asked)
        try:
            if not await _comes_first(turn.result, request):
                return Response(status_code=499)
        finally:
            turn.leave()
        made, logprobs = turn.result.result()
        return JSONResponse(self._envelope(asked).whole(made, logprobs))

    async def _stream(self, asked: CompletionRequest, request: Request) -> Response:
        """The first event is awaited, so that a request that cannot be answered gets a status of its own."""
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        turn = self._take(asked, lambda text: _post(loop, pieces, text))
        turn.result.add_done_callback(lambda _: pieces.put_nowait(None))
        waiting = asyncio.ensure_future(pieces.get())
        try:
            if not await _comes_first(waiting, request):
                waiting.cancel()
                turn.leave()
                return Response(status_code=499)
            first = waiting.result()
            if first is None:
                turn.result.result()  # raises what went wrong
        except BaseException:
            turn.leave()
            raise
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        events = _events(self._envelope(asked), turn, first, pieces, usage)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _events(
    envelope: Envelope, turn: Turn[Answer], first: str | None, pieces: asyncio.Queue[str | None], usage: bool
) -> AsyncIterator[bytes]:
    text = first
    try:
        while text is not None:
            ready, ended = _ready(pieces, text)
            yield envelope.piece(ready)
            text = None if ended else await pieces.get()
        made, logprobs = await turn.result
        yield envelope.end(made, logprobs, usage)
    except WorkbenchError as error:  # the status is out already: the stream tells it
        yield b"data: " + bytes(_workbench_problem(error).body) + b"\n\n"
    finally:
        turn.leave()


def _ready(pieces: asyncio.Queue[str | None], text: str) -> tuple[str, bool]:
    """``text`` and all that has come meanwhile, as one piece, and whether that is the end."""
    ready = [text]
    while not pieces.empty():
        more = pieces.get_nowait()
        if more is None:
            return "".join(ready), True
        ready.append(more)
    return "".join(ready), False


def _post(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[str | None], text: str) -> None:
    """From the model's thread to the loop's; a loop that has ended has no more listeners."""
    try:
        loop.call_soon_threadsafe(pieces.put_nowait, text)
    except RuntimeError:
        raise Gone from None


async def _comes_first(wanted: asyncio.Future[Any], request: Request) -> bool:
    """Wait for ``wanted``; False when the client goes first."""
    leaving = asyncio.ensure_future(_disconnect(request))
    try:
        waited: list[asyncio.Future[Any]] = [wanted, leaving]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        return wanted.done()
    finally:
        leaving.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read(request: Request) -> CompletionRequest | Response:
    """The request, or the answer that says what is wrong with it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return problem(413, f"the request is larger than {MAX_BODY_BYTES >> 20} MiB", "too_large")
    try:
        return CompletionRequest.model_validate(json.loads(body))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = str(first["loc"][0]) if first["loc"] else None
        return problem(400, f"{where or 'the request'}: {first['msg']}", "invalid_value", param=where)
    except (ValueError, RecursionError):
        return problem(400, "the request is not JSON", "invalid_json")


def _workbench_problem(error: WorkbenchError) -> JSONResponse:
    message = f"{error.what} ({error.hint})" if error.hint else error.what
    return problem(400 if isinstance(error, UserError) else 500, message, type(error).__name__.lower())


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, WorkbenchError)
    return _workbench_problem(error)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem(404, f"there is nothing at {request.url.path}", "not_found")
    return problem(error.status_code, error.detail, "not_allowed", headers=error.headers)


async def _bug(request: Request, error: Exception) -> Response:
    return problem(500, f"the server has a bug: {type(error).__name__}", "bug")


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)
