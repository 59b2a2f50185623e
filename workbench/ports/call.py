"""One call of something that takes long: who asks, and whether anybody still waits for the answer.

The one way to give work up: whoever asked holds the ``Call`` and cancels it, whoever works is told or looks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancelled(Exception):
    """Nobody waits for the answer any more. Raised where the work is done; no error, and nobody is told."""


class Call:
    """``client`` names who asks, for a queue that is fair. Safe to share between threads; cancelled for good."""

    def __init__(self, client: str = "") -> None:
        self.client = client
        self._lock = threading.Lock()
        self._cancelled = False
        self._listeners: list[Callable[[], None]] = []

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled

    def check(self) -> None:
        """Cancelled where the call is."""
        if self._cancelled:
            raise Cancelled

    def cancel(self) -> None:
        """Give the call up; harmless to repeat. It does not wait for the work to end."""
        with self._lock:
            told, self._listeners = self._listeners, []
            self._cancelled = True
            for listener in told:
                listener()

    @contextmanager
    def tells(self, listener: Callable[[], None]) -> Iterator[None]:
        """``listener`` is called when the call is cancelled within this block, at once where it already is, and never
        after the block. It must be quick, must not raise, and runs in the thread that cancels."""
        with self._lock:
            if self._cancelled:
                listener()
            else:
                self._listeners.append(listener)
        try:
            yield
        finally:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)
