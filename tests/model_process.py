"""For tests of whoever needs a model: the first model process that is started is ended by a signal."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def model_process_ended(number: signal.Signals = signal.SIGSEGV) -> Iterator[list[int]]:
    """Within the block the first model process below this one gets a signal; its id is in the list."""
    ended: list[int] = []
    over = threading.Event()
    before = set(_model_processes())

    def watch() -> None:
        while not ended and not over.is_set():
            for pid in _model_processes():
                if pid not in before:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                    ended.append(pid)
                    return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield ended
    finally:
        over.set()
        watcher.join()


def _model_processes() -> Iterator[int]:
    """Those that this process, or one that it started, has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"workbench.inference.host" in (folder / "cmdline").read_bytes().split(b"\0") and _is_ours(folder.name):
                yield int(folder.name)


def _is_ours(pid: str) -> bool:
    while pid not in ("0", str(os.getpid())):
        pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    return pid == str(os.getpid())
