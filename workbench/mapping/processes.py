"""The Mapper of one machine: spawned worker processes, results in order, a bounded look-ahead.

The result does not depend on how many workers there are: functions are pure, and results come back in the order of
the items. One worker means this process. Where native code ends a worker, the items that were in work are done again,
one at a time: so it is known on which of them it crashes. Not here: several machines.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from workbench.domain.errors import LOG_WIDTH, NativeCrash, StageFailed, signal_name

T = TypeVar("T")
R = TypeVar("R")

_KILLED = "mostly it is the system that ends one when memory runs out: use fewer workers, and see dmesg"
LOOK_AHEAD = 4  # chunks in flight for each worker: keeps them busy and bounds what is held in memory


class ProcessMapper:
    """Maps pure functions over items in ``workers`` processes."""

    def __init__(self, workers: int) -> None:
        self._workers = max(1, workers)

    def map(self, function: Callable[[T], R], items: Iterable[T], *, chunk: int = 1) -> Iterator[R]:
        """Results in the order of the items; an exception of ``function`` is raised here, NativeCrash when a worker was
        ended by a signal, StageFailed when it ended otherwise. The workers end with the iterator."""
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
        workers = _Workers()
        pool = workers.pool(self._workers)
        waiting = deque((part, pool.submit(_apply, function, part)) for part in first)
        try:
            while waiting:
                for part in islice(chunks, max(0, self._workers * LOOK_AHEAD - len(waiting))):
                    waiting.append((part, pool.submit(_apply, function, part)))
                yield from waiting[0][1].result()
                waiting.popleft()
        except BrokenProcessPool:
            pool.shutdown(wait=True, cancel_futures=True)
            raise _death(function, workers.exit_code(), [item for part, _ in waiting for item in part]) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Workers(SpawnContext):
    """Starts a pool's workers and remembers them: a pool does not tell how one of them died."""

    def __init__(self) -> None:
        self._started: list[SpawnProcess] = []

    def pool(self, workers: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(workers, mp_context=self, initializer=_end_with_parent)

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override] # noqa: N802 - its name
        self._started.append(SpawnProcess(*args, **kwargs))
        return self._started[-1]

    def exit_code(self) -> int:
        """Of the worker that died by itself: the pool ends the others with SIGTERM."""
        codes = [process.exitcode or 0 for process in self._started]
        return next((code for code in codes if code not in (0, -signal.SIGTERM)), -signal.SIGTERM)


def _death(function: Callable[[T], R], exit_code: int, items: list[T]) -> NativeCrash | StageFailed:
    """What is said of a worker that died with ``items`` in work."""
    name = _name(function)
    if exit_code >= 0:
        return StageFailed(f"a worker process ended with exit code {exit_code} while mapping {name}", "see its log")
    if -exit_code in (signal.SIGKILL, signal.SIGTERM):  # not by itself: no item is to blame
        return NativeCrash(f"a worker of {name}", signal_name(-exit_code), hint=_KILLED)
    given = _culprit(function, items)
    hint = "" if given else "it did not crash again on the same items: run it again, and watch this machine's memory"
    return NativeCrash(f"native code in {name}", signal_name(-exit_code), given=given, hint=hint)


def _culprit(function: Callable[[T], R], items: list[T]) -> str:
    """The first of the items on which ``function`` crashes, done alone; empty where it crashes on none."""
    with _Workers().pool(1) as pool:
        for item in items:
            try:
                pool.submit(function, item).result()
            except BrokenProcessPool:
                return str(item)[:LOG_WIDTH]
            except Exception:  # noqa: BLE001 - the function's own error is not what is looked for
                continue
    return ""


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
