"""A bound on how long something may take: what is overdue is ended by one thread that waits for all of them.

A ``threading.Timer`` for each question to git costs a thread for each, a tenth of a millisecond of every push.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watchdog:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[object, tuple[float, Callable[[], object]]] = {}
        self._wakes_s = -math.inf  # until then the thread sleeps; nobody has to wake it for a later deadline
        self._thread: threading.Thread | None = None

    @contextmanager
    def bounded(self, seconds: float, end: Callable[[], object]) -> Iterator[None]:
        """Call ``end`` from another thread when the block takes longer than ``seconds``. It must not wait or raise."""
        key, deadline = object(), time.monotonic() + seconds
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
                thread.start()
                self._thread = thread  # only now: where the system gave none, the next block asks again
            elif deadline < self._wakes_s:
                self._changed.notify()
            self._due[key] = (deadline, end)
        try:
            yield
        finally:
            with self._changed:
                self._due.pop(key, None)

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for key in [key for key, (deadline, _) in self._due.items() if deadline <= now]:
                    self._due.pop(key)[1]()
                self._wakes_s = min((deadline for deadline, _ in self._due.values()), default=math.inf)
                self._changed.wait(None if self._wakes_s == math.inf else self._wakes_s - now)


def _renew() -> None:
    """A forked child has no thread of ours, and perhaps a lock that nobody holds any more."""
    global WATCHDOG
    WATCHDOG = Watchdog()


WATCHDOG = Watchdog()
os.register_at_fork(after_in_child=_renew)
