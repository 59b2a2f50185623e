"""SIGTERM and SIGHUP as an exception: who is told to end (a closed terminal, a shutdown) ends what it started."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """One of these signals came; ``signum`` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextmanager
def raised() -> Iterator[None]:
    """Terminated is raised while this lasts, in the main thread; a signal that is ignored or handled stays so."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: handler for number in _SIGNALS if (handler := signal.getsignal(number)) is signal.SIG_DFL}
    try:
        for number in before:
            signal.signal(number, _raise)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(signum: int, _frame: FrameType | None) -> None:
    raise Terminated(signum)
