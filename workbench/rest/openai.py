"""One release under OpenAI's completions API, for editors and clients that speak it. Loopback unless told otherwise.

``/v1/models``, ``/v1/completions`` (``suffix`` is fill-in-the-middle, ``stream`` server-sent events), ``/health``. Chat
is refused: the models of this house are base models. Not here: the shapes (``openai_format``), the queue
(the model port's), who may ask (``guard``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from workbench.domain.errors import NativeCrash, UserError, WorkbenchError
from workbench.domain.generation import Prompt
from workbench.domain.reading import BadInput, Limits, parse_json
from workbench.ports.call import Call, Cancelled
from workbench.ports.inference import Busy, LoadedModel
from workbench.rest.guard import LOOPBACK, Guard, names, problem
from workbench.rest.listening import address, listen, serve_on
from workbench.rest.openai_format import (
    Choice,
    CompletionRequest,
    Envelope,
    completion_id,
    log_probabilities,
    model_entry,
)

MAX_BODY_BYTES = 4 << 20
BODY_S = 30.0  # in which a body must have arrived, to be told so; ``arrival`` ends what is slower, and slow heads
BODY = Limits(size_bytes=MAX_BODY_BYTES)
THREADS = 512  # more than the model's queue holds: it says so before they run out
Answer = list[Choice]
Piece = tuple[int, str]  # a choice's number and new text of it
OnPiece = Callable[[int, str], None]


def create_app(
    model: LoadedModel,
    release: str,
    *,
    hosts: Collection[str] = LOOPBACK,
    body_s: float = BODY_S,
) -> Starlette:
    """The application. ``release`` is the tag that answers name; the caller closes ``model`` afterwards."""
    routes = _Routes(model, release, body_s)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        routes.close()

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
            Cancelled: _cancelled,
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
    def __init__(self, model: LoadedModel, release: str, body_s: float) -> None:
        self._model, self._release, self._body_s = model, release, body_s
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="asks")
        self._calls: set[Call] = set()

    def close(self) -> None:
        """Give up all that is asked. It does not wait: whoever closes the model ends what is at work."""
        for call in list(self._calls):
            call.cancel()
        self._threads.shutdown(wait=False)

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "release": self._release, "taken": len(self._calls)})

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
        call = Call(_client(request, asked))
        return await (self._stream(asked, request, call) if asked.stream else self._whole(asked, request, call))

    def _is_ours(self, name: str) -> bool:
        """The release's tag, with or without its version."""
        return name in (self._release, self._release.rpartition("/")[0])

    def _other_model(self, name: str) -> Response:
        return problem(404, f"there is no model {name!r} here, only {self._release}", "model_not_found", param="model")

    def _ask(self, asked: CompletionRequest, call: Call, on_text: OnPiece | None = None) -> asyncio.Future[Answer]:
        """The answer, made in a thread: the model's queue says who is next, and ``call`` gives it up."""

        def work() -> Answer:
            prompts = enumerate(asked.to_prompts())
            return [self._choose(index, prompt, asked, call, on_text) for index, prompt in prompts]

        def done(answer: asyncio.Future[Answer]) -> None:
            self._calls.discard(call)
            if not answer.cancelled():
                answer.exception()  # seen: whoever still waits gets it, and nobody is warned that nobody did

        self._calls.add(call)
        answer = asyncio.get_running_loop().run_in_executor(self._threads, work)
        answer.add_done_callback(done)
        return answer

    def _choose(
        self, index: int, prompt: Prompt, asked: CompletionRequest, call: Call, on_text: OnPiece | None
    ) -> Choice:
        echo = prompt.text if asked.echo else ""
        hear = functools.partial(on_text, index) if on_text else None
        made = self._model.generate(prompt, asked.to_sampling(), hear, call=call)
        if asked.logprobs is None:
            return Choice(made, None, echo)
        return Choice(made, log_probabilities(self._model, made, asked.logprobs, asked.echo, call), echo)

    def _envelope(self, asked: CompletionRequest) -> Envelope:
        return Envelope(self._release, completion_id(self._release, asked), int(time.time()))

    async def _whole(self, asked: CompletionRequest, request: Request, call: Call) -> Response:
        answer = self._ask(asked, call)
        try:
            if not await _comes_first(answer, request):
                return Response(status_code=499)
        finally:
            call.cancel()
        return JSONResponse(self._envelope(asked).whole(answer.result()))

    async def _stream(self, asked: CompletionRequest, request: Request, call: Call) -> Response:
        """The first event is awaited, so that a request that cannot be answered gets a status of its own."""
        pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        answer = self._ask(asked, call, lambda index, text: _post(loop, pieces, (index, text)))
        answer.add_done_callback(lambda _: pieces.put_nowait(None))
        waiting = asyncio.ensure_future(pieces.get())
        try:
            if not await _comes_first(waiting, request):
                waiting.cancel()
                call.cancel()
                return Response(status_code=499)
            first = waiting.result()
            if first is None:
                answer.result()  # raises what went wrong
        except BaseException:
            call.cancel()
            raise
        events = _events(self._envelope(asked), answer, call, first, pieces, asked.stream_options.include_usage)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _events(
    envelope: Envelope,
    answer: asyncio.Future[Answer],
    call: Call,
    first: Piece | None,
    pieces: asyncio.Queue[Piece | None],
    usage: bool,
) -> AsyncIterator[bytes]:
    try:
        async for ready in _together(first, pieces):
            for index, texts in itertools.groupby(ready, key=lambda piece: piece[0]):
                yield envelope.piece(index, "".join(text for _, text in texts))
        yield envelope.end(await answer, usage)
    except WorkbenchError as error:  # the status is out already: the stream tells it
        yield b"data: " + bytes(_workbench_problem(error).body) + b"\n\n"
    except Cancelled:
        yield b"data: " + bytes(_ending().body) + b"\n\n"
    finally:
        call.cancel()


async def _together(first: Piece | None, pieces: asyncio.Queue[Piece | None]) -> AsyncIterator[list[Piece]]:
    """What has come meanwhile; None is the last."""
    ready = [first]
    while True:
        while not pieces.empty():
            ready.append(pieces.get_nowait())
        yield [piece for piece in ready if piece]
        if ready[-1] is None:
            return
        ready = [await pieces.get()]


def _post(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[Piece | None], piece: Piece) -> None:
    """From the thread that asks to the loop's; a loop that has ended has no more listeners."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(pieces.put_nowait, piece)


def _client(request: Request, asked: CompletionRequest) -> str:
    """Who asks, as far as a request tells: the queue takes clients in turn."""
    address = request.client.host if request.client else ""
    said = [request.headers.get(name, "") for name in ("authorization", "user-agent")]
    return "\n".join([address, *said, asked.user])


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
        return CompletionRequest.read(parse_json(bytes(body), BODY))
    except BadInput as error:
        return problem(400, f"the request: {error}", "invalid_json")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = str(first["loc"][0]) if first["loc"] else None
        return problem(400, f"{where or 'the request'}: {first['msg']}", "invalid_value", param=where)


def _workbench_problem(error: WorkbenchError) -> JSONResponse:
    message = f"{error.what} ({error.hint})" if error.hint else error.what
    if isinstance(error, NativeCrash):
        print(error, file=sys.stderr)  # with its log, which names places of this machine
    if isinstance(error, Busy):
        return problem(429, message, "busy", retry_s=error.retry_s)
    return problem(400 if isinstance(error, UserError) else 500, message, type(error).__name__.lower())


def _ending() -> JSONResponse:
    return problem(503, "the server is ending", "ending", retry_s=5)


async def _cancelled(request: Request, error: Exception) -> Response:
    return _ending()


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
