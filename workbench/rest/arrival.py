"""HTTP connections that are there for requests: closed where a request, or the next one, is too long in coming.

uvicorn ends only a connection that is silent after an answer; half a head, or one byte a minute, held one for ever, and
its place among those that are served. Not here: slow readers (a large file may take its time), and saying that it was
too slow: who has sent no whole head is told nothing, a body's route may answer 408 before this ends it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 30.0  # from the connection, or from the last answer, to a whole head
BODY_S = 60.0  # from there to the whole body


class ArrivalProtocol(H11Protocol):
    """uvicorn's protocol with one more timer. It runs while something is awaited of the client."""

    head_s, body_s = HEAD_S, BODY_S

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await(self.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._await(None)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.cycle.response_complete:
            self._await(self.body_s)

    def on_response_complete(self) -> None:
        self._await(self.head_s)  # first: a request that came meanwhile begins in what follows, with a time of its own
        super().on_response_complete()

    def _await(self, seconds: float | None) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
        self._overdue = None if seconds is None else self.loop.call_later(seconds, self._end)

    def _end(self) -> None:
        arrived = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        if not arrived:
            self.transport.close()  # what was answered is still sent
