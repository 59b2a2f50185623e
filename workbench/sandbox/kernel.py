"""How much of the kernel's own memory a jail holds: what it notes of mappings, watches, locks and pipes.

No limit sees these notes, and asking for them takes time. So first the whole machine is asked, which is cheap: a job is
charged with no more than the machine's notes have grown by since it began, and only as far as its own processes could
be the cause. Bounded by limits on each, and not counted: processes and threads (``nproc``), signals and timers
(``sigpending``), page tables (1/512 of the address space), pipes on their way through a socket (16 MiB).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence

EVERY_S = 0.2
UNNOTICED_BYTES = 24 << 20
NOTE_BYTES = 256  # of a mapping, of a mapping that a fork has inherited, of a watch, of a lock: none is larger
PIPE_BYTES = 64 << 10  # the filter lets none be larger
MANY_OPEN = 128  # descriptors of a tree: fewer hold no more than 8 MiB in pipes
_NOTES = re.compile(rb"^(?:tfd|lock|inotify|fanotify):", re.MULTILINE)
_SENT = re.compile(rb"^scm_fds:\s*[1-9]", re.MULTILINE)
_SLABS = re.compile(rb"^SUnreclaim:\s*([0-9]+) kB", re.MULTILINE)


class KernelMemory:
    """Of one jail, from now on."""

    def __init__(self) -> None:
        self._report = os.open("/proc/meminfo", os.O_RDONLY | os.O_CLOEXEC)
        self._before_bytes = self._slabs_bytes()
        self._next_s = 0.0
        self._held_bytes = 0

    def close(self) -> None:
        os.close(self._report)

    def held_bytes(self, tasks: Sequence[int], left_bytes: int) -> int:
        """The most that the processes of ``tasks`` can have the kernel hold; looks now and then, and counts no further
        than ``left_bytes``."""
        if time.monotonic() >= self._next_s:
            start_s = time.monotonic()
            self._held_bytes = self._noted_bytes(tasks, left_bytes) + _in_pipes_bytes(tasks)
            self._next_s = start_s + max(EVERY_S, 4 * (time.monotonic() - start_s))
        return self._held_bytes

    def _noted_bytes(self, tasks: Sequence[int], left_bytes: int) -> int:
        now_bytes = self._slabs_bytes()
        self._before_bytes = min(self._before_bytes, now_bytes)
        grown_bytes = now_bytes - self._before_bytes
        if grown_bytes <= UNNOTICED_BYTES:
            return 0
        enough_bytes = min(grown_bytes, left_bytes + 1)
        held_bytes = 0
        for task in tasks:
            # What a mapping's page came from is noted once for each of the processes that it was inherited from.
            held_bytes += NOTE_BYTES * len(tasks) * _num_mappings(task, enough_bytes // NOTE_BYTES)
            for report in _descriptors(task):
                if _SENT.search(report):  # what is sent may hold as much as it likes, and nobody sees it
                    return grown_bytes
                held_bytes += NOTE_BYTES * len(_NOTES.findall(report))
            if held_bytes >= enough_bytes:
                break
        return min(held_bytes, grown_bytes)

    def _slabs_bytes(self) -> int:
        found = _SLABS.search(os.pread(self._report, 1 << 13, 0))
        return int(found[1]) << 10 if found else 0


def _num_mappings(task: int, most: int) -> int:
    num = 0
    with contextlib.suppress(OSError), open(f"/proc/{task}/maps", "rb", buffering=0) as file:
        while num <= most and (piece := file.read(1 << 16)):
            num += piece.count(b"\n")
    return num


def _descriptors(task: int) -> Iterator[bytes]:
    """What the kernel tells of each open file; of a pipe it tells nothing that matters here."""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{task}/fdinfo"):
            with contextlib.suppress(OSError), open(f"/proc/{task}/fdinfo/{name}", "rb") as file:
                yield file.read()


def _in_pipes_bytes(tasks: Sequence[int]) -> int:
    if sum(map(_num_open, tasks)) <= MANY_OPEN:
        return 0
    pipes = set()
    for task in tasks:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{task}/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{task}/fd/{name}")
                    if target.startswith("pipe:"):
                        pipes.add(target)
    return len(pipes) * PIPE_BYTES


def _num_open(task: int) -> int:
    """Kernels before 6.2 do not tell it so cheaply."""
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{task}/fd").st_size or len(os.listdir(f"/proc/{task}/fd"))
    return 0
