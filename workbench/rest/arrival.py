"""HTTP connections are there for requests: one whose client owes something for too long is ended, and of too many such
the oldest, so that they keep nobody else out.

A client owes a head, the rest of a body, or that it takes what was written. uvicorn ends only a connection that is
silent after an answer; half a head, or one byte a minute, held one for ever, and its place among those that are served.
Not here: saying that it was too slow. Who has sent no whole head is told nothing; a body's route may answer 408 before
this ends it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 5.0  # from the connection, or from the last answer, to a whole head
BODY_S = 60.0  # from there to the whole body
STALL_S = 60.0  # without taking a byte of what was written
MOST_OWING = 128  # connections at once: half of those that are served


class ArrivalProtocol(H11Protocol):
    """uvicorn's protocol with one more timer. It runs while the client owes something."""

    head_s, body_s, stall_s, most_owing = HEAD_S, BODY_S, STALL_S, MOST_OWING

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._overdue: asyncio.TimerHandle | None = None
        self._since_s, self._unsent = 0.0, 0

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
        unsent = self.transport.get_write_buffer_size()
        self._await(
            self.stall_s if unsent else self.head_s
        )  # first: a request that came meanwhile begins in what follows, with a time of its own
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await(self.stall_s)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._await(self.head_s if self._is_answered else self.body_s)

    @property
    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    @property
    def _owes(self) -> bool:
        return self._is_answered or self.cycle.more_body or self.flow.write_paused

    def _await(self, seconds: float | None) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
        self._overdue = None
        if seconds is not None:
            self._overdue, self._since_s = self.loop.call_later(seconds, self._judge), self.loop.time()
            self._unsent = self.transport.get_write_buffer_size()
            self._make_room()

    def _make_room(self) -> None:
        owing = [each for each in self.connections if isinstance(each, ArrivalProtocol) and each._owes]
        if len(owing) > self.most_owing:
            min(owing, key=lambda each: each._since_s)._end()

    def _judge(self) -> None:
        if 0 < self.transport.get_write_buffer_size() < self._unsent:
            self._await(self.stall_s)
        elif self._owes:
            self._end()

    def _end(self) -> None:
        self.connections.discard(self)  # now: its place is free before the loop comes to closing it
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()
