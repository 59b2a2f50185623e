"""Who waits for the model: one call at a time, the clients in turn, each client's own calls in their order; bounded.

Not here: what a call does.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from workbench.domain.errors import UserError
from workbench.ports.call import Call
from workbench.ports.inference import Busy

MAX_WAITING = 128  # calls of all clients together
MAX_WAITING_OF_ONE = 64  # so that one client's flood leaves room in the line for the others


class FairQueue:
    """Safe to share between threads."""

    def __init__(self, max_waiting: int = MAX_WAITING, max_waiting_of_one: int = MAX_WAITING_OF_ONE) -> None:
        self._max_waiting, self._max_waiting_of_one = max_waiting, max_waiting_of_one
        self._lock = threading.Condition()
        self._at_work: threading.Event | None = None
        self._lines: dict[str, deque[threading.Event]] = {}  # by client; the first client's first call is next
        self._closed = False

    @contextmanager
    def turn(self, call: Call) -> Iterator[None]:
        """Wait for the model and have it alone within the block. Busy when too many wait, Cancelled when the call is
        given up meanwhile, UserError when the queue is closed."""
        place = self._enter(call.client)
        try:
            with call.tells(place.set):
                place.wait()
            call.check()
            self.check_open()
            yield
        finally:
            self._leave(call.client, place)

    @property
    def taken(self) -> int:
        """How many calls are at work or wait."""
        with self._lock:
            return sum(map(len, self._lines.values())) + (self._at_work is not None)

    def close(self) -> None:
        """Nobody gets a turn any more; those who wait are told. The one at work is not."""
        with self._lock:
            self._closed = True
            for line in self._lines.values():
                for place in line:
                    place.set()

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Whether nobody is at work any more."""
        with self._lock:
            return self._lock.wait_for(lambda: self._at_work is None, timeout_s)

    def check_open(self) -> None:
        """UserError where the queue was closed."""
        if self._closed:
            raise UserError("the model is closed", "load it again")

    def _enter(self, client: str) -> threading.Event:
        place = threading.Event()
        with self._lock:
            self.check_open()
            if self._at_work is None:
                self._lines[client] = deque([place])
                self._call_next()
                return place
            waiting = sum(map(len, self._lines.values()))
            line = self._lines.get(client, deque())
            if waiting >= self._max_waiting or len(line) >= self._max_waiting_of_one:
                raise Busy(waiting + 1)
            line.append(place)
            self._lines[client] = line
        return place

    def _leave(self, client: str, place: threading.Event) -> None:
        with self._lock:
            if self._at_work is not place:
                self._lines[client].remove(place)
                return
            self._lines[client] = self._lines.pop(client)  # behind all other clients
            self._call_next()

    def _call_next(self) -> None:
        """The first client's first call. Its client stays first, also with nobody in line, until the call is done."""
        for client in [client for client, line in self._lines.items() if not line]:
            del self._lines[client]
        first = next(iter(self._lines.values()), None)
        self._at_work = first.popleft() if first else None
        if self._at_work:
            self._at_work.set()
        else:
            self._lock.notify_all()
