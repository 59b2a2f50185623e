"""The Mapper of one machine: spawned worker processes, results in order, a bounded look-ahead.

The result does not depend on how many workers there are: functions are pure, and results come back in the order of
the items. One worker means this process. Not here: several machines.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from workbench.domain.errors import StageFailed

T = TypeVar("T")
R = TypeVar("R")

LOOK_AHEAD = 4  # chunks in flight for each worker: keeps them busy and bounds what is held in memory


class ProcessMapper:
    """Maps pure functions over items in ``workers`` processes."""

    def __init__(self, workers: int) -> None:
        self._workers = max(1, workers)

    def map(self, function: Callable[[T], R], items: Iterable[T], *, chunk: int = 1) -> Iterator[R]:
        """Results in the order of the items; an exception of ``function`` is raised here, StageFailed when a worker
        died. The workers end with the iterator."""
        assert chunk >= 1
        if self._workers == 1:
            return map(function, items)
        return self._spread(function, items, chunk)

    def _spread(self, function: Callable[[T], R], items: Iterable[T], chunk: int) -> Iterator[R]:
        chunks = _chunks(items, chunk)
        first = list(islice(chunks, 2))
        if len(first) < 2:  # nothing to spread: do not start processes for it
            yield from (function(item) for part in first for item in part)
            return
        pool = ProcessPoolExecutor(
            self._workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
        )
        waiting: deque[Future[list[R]]] = deque(pool.submit(_apply, function, part) for part in first)
        try:
            while waiting:
                for part in islice(chunks, max(0, self._workers * LOOK_AHEAD - len(waiting))):
                    waiting.append(pool.submit(_apply, function, part))
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            raise StageFailed(
                f"a worker process died while mapping {_name(function)}",
                "the system may have run out of memory: use fewer workers, or see the kernel's log",
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def _apply(function: Callable[[T], R], items: list[T]) -> list[R]:
    return [function(item) for item in items]


def _name(function: Callable[[T], R]) -> str:
    return str(getattr(getattr(function, "func", function), "__qualname__", "a function"))


def _end_with_parent() -> None:
    """A pool's queue never closes when the parent is killed, so each worker watches its parent."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
