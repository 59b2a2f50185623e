"""Calls of tools, each in a thread of its own: one that hangs, exits or panics harms neither the others nor the server.

The threads are daemons: nobody waits for them when the server ends. A thread cannot be ended from outside: it is told
when nobody waits for its call any more, and the number of those that run is bounded. Not here: what a call does.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from workbench.domain.errors import WorldError
from workbench.ports.call import Call

T = TypeVar("T")
MAX_RUNNING = 64


class Calls:
    """Threads of one server."""

    def __init__(self, limit: int = MAX_RUNNING) -> None:
        self._free = threading.BoundedSemaphore(limit)
        self._limit = limit

    async def run(self, function: Callable[[Call], T], client: str = "") -> T:
        """What ``function`` gives, or its exception; one that would end the program (SystemExit, KeyboardInterrupt, an
        engine's panic) as a RuntimeError. WorldError when too many calls run already. ``function`` is given
        the call, which is cancelled when nobody waits for it any more."""
        if not self._free.acquire(blocking=False):
            raise WorldError(f"{self._limit} calls are running already", "try again later; start it anew if they hang")
        made: Future[T] = Future()
        made.set_running_or_notify_cancel()
        call = Call(client)
        work = functools.partial(contextvars.copy_context().run, function, call)
        try:
            threading.Thread(target=self._settle, args=(made, work), name="tool", daemon=True).start()
        except RuntimeError as error:  # the system gives no more threads
            self._free.release()
            raise WorldError("the call cannot be started: no thread is to be had", "end other programs") from error
        try:
            return await asyncio.wrap_future(made)
        except asyncio.CancelledError:
            call.cancel()
            raise

    def _settle(self, made: Future[T], work: Callable[[], T]) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = work()
        except Exception as raised:  # noqa: BLE001 - it is told to who waits
            error = raised
        except BaseException as raised:  # noqa: BLE001 - likewise: only this call ends
            error = RuntimeError(f"the call ended with {type(raised).__name__}")
            error.__cause__ = raised
        finally:
            self._free.release()
        if error is not None:
            made.set_exception(error)
        else:
            made.set_result(result)
