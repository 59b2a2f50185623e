"""One model, many who ask: one answer is made at a time, a bounded number waits, and who has gone is not answered.

Not here: HTTP.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Busy(Exception):
    """Too many are waiting already."""


class Gone(Exception):
    """Nobody waits for the answer any more. Raised inside the work, by ``Turn.check``."""


@dataclass(frozen=True)
class Turn(Generic[T]):
    """A place in the queue, and then the work itself."""

    result: asyncio.Future[T]
    _gone: threading.Event

    def leave(self) -> None:
        """Give up: the work ends at its next ``check``, or never starts."""
        self._gone.set()


class Turns:
    """A single worker thread and a queue of at most ``max_waiting`` behind it."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._open: set[Turn[Any]] = set()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    @property
    def taken(self) -> int:
        """How many are being answered or wait."""
        return len(self._open)

    def take(self, work: Callable[[Callable[[], None]], T]) -> Turn[T]:
        """Queue ``work``; it is given ``check``, to be called often, which raises Gone. Busy when the queue is full."""
        if self.taken > self._max_waiting:
            raise Busy
        gone = threading.Event()

        def check() -> None:
            if gone.is_set():
                raise Gone

        def run() -> T:
            check()
            return work(check)

        turn = Turn(asyncio.get_running_loop().run_in_executor(self._worker, run), gone)
        self._open.add(turn)
        turn.result.add_done_callback(lambda result: self._done(turn, result))
        return turn

    def close(self) -> None:
        """Ask all to leave, and wait for the one at work."""
        for turn in list(self._open):
            turn.leave()
        self._worker.shutdown(wait=True)

    def _done(self, turn: Turn[T], result: asyncio.Future[T]) -> None:
        self._open.discard(turn)
        if not result.cancelled():
            result.exception()  # seen: whoever still waits gets it, and nobody is warned that nobody did
