"""How much memory a jail holds: its processes, its own file systems, the buffers of its sockets, the kernel's notes.

What else could hold pages that no process has mapped, the system-call filter refuses (``system_calls``): anonymous
files and shared memory, System V objects, pages given to pipes and sockets, attributes of files, rules and filters.
What the kernel notes of a job is ``kernel.py``'s. A page of a file in the jail that is mapped as well counts twice. Not
covered: memory between two looks (20 ms), in processes that follow each other faster than the tree is walked, and
swapped out. RLIMIT_AS bounds it, which is the whole limit again for each process.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path

from workbench.domain.errors import WorldError
from workbench.sandbox.kernel import KernelMemory

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MAX_PROCESSES = 4096  # a bound for walking the tree, far above every limit
WRITABLE = ("tmp", "out", "dev/shm")  # the file systems that a job can write to, all in memory
INODE_BYTES = 2048  # of the kernel's, with a name of 255 bytes, for a file that may be empty

OPTIONS_BYTES = 128 << 10  # of a socket's filters and options (net.core.optmem_max)


class Kept:
    """What a jail keeps that no process has mapped, also when the process that made it has gone.

    Opened when the jail stands and before the job begins, so nothing that the job does can hide it."""

    def __init__(self) -> None:
        self._folders: list[int] = []
        self._network = -1
        self._kernel: KernelMemory | None = None

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (*self._folders, self._network):
            if fd >= 0:
                os.close(fd)
        if self._kernel is not None:
            self._kernel.close()

    def open(self, first: int | None, *, out_on_disk: bool = False, network: bool = False) -> None:
        """Look into the jail whose first process is ``first``. Where it has this machine's network, its sockets cannot
        be told from others, and its limit of descriptors alone bounds them."""
        try:
            for name in (name for name in WRITABLE if not (out_on_disk and name == "out")):
                flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                self._folders.append(os.open(f"/proc/{first}/root/{name}", flags))
            if not network:
                self._network = os.open(f"/proc/{first}/net/sockstat", os.O_RDONLY | os.O_CLOEXEC)
            self._kernel = KernelMemory()
            _buffers()
        except OSError as error:
            raise WorldError(f"the memory of a sandbox cannot be watched: {error}", "`workbench doctor`") from error

    def size_bytes(self) -> int:
        files_bytes = sum(map(_file_system, self._folders))
        if self._network < 0:
            return files_bytes
        return files_bytes + _sockets(os.pread(self._network, 1 << 12, 0), _buffers())

    def noted_bytes(self, tasks: Sequence[int], left_bytes: int) -> int:
        """What the kernel holds for these processes, besides."""
        return self._kernel.held_bytes(tasks, left_bytes) if self._kernel is not None else 0


def tree_exceeds(root: int, limit_bytes: int, kept: Kept) -> bool:
    """Whether a tree and its jail hold more than ``limit_bytes``. Resident sizes are cheap and count shared pages many
    times, so the proportional sizes are read only when the resident ones are already too many."""
    left_bytes = limit_bytes - kept.size_bytes()
    sizes_bytes = dict(map(_measured, _tree(root)))
    left_bytes -= kept.noted_bytes(list(sizes_bytes), left_bytes)
    if sum(sizes_bytes.values()) <= left_bytes:
        return False
    return sum(map(_proportional, sizes_bytes)) > left_bytes


def _file_system(fd: int) -> int:
    """Of what was deleted, too, as long as somebody has it open."""
    found = os.fstatvfs(fd)
    return (found.f_blocks - found.f_bfree) * found.f_frsize + (found.f_files - found.f_ffree) * INODE_BYTES


@dataclass(frozen=True)
class Buffers:
    """The most that one socket can hold; a job cannot make them larger."""

    size_bytes: int
    tcp_bytes: int  # besides, in one of TCP: the kernel chooses as it goes along


@cache
def _buffers() -> Buffers:
    """As much again as the buffer's size: the last message may begin when it is nearly full."""
    with socket.socket(socket.AF_UNIX) as one:  # the machine's defaults, which a container does not see under /proc/sys
        size_bytes = max(one.getsockopt(socket.SOL_SOCKET, way) for way in (socket.SO_SNDBUF, socket.SO_RCVBUF))
    return Buffers(2 * size_bytes + OPTIONS_BYTES, sum(map(_largest, "rw")))


def _largest(way: str) -> int:
    """Of a TCP buffer; what the kernel sets by itself where the machine does not say."""
    try:
        return int(Path(f"/proc/sys/net/ipv4/tcp_{way}mem").read_text().split()[2])
    except OSError:
        return {"r": 6 << 20, "w": 4 << 20}[way]


def _sockets(report: bytes, buffers: Buffers) -> int:
    """The most that a network's sockets can hold, out of its sockstat: how many there are, with those that wait to be
    accepted and those that were closed before what they sent was read. What local ones hold is counted nowhere by
    bytes, and what those of TCP hold only for the whole machine."""
    words = report.split()
    num, machine_bytes = int(words[2]), int(words[words.index(b"TCP:") + 10]) * PAGE_BYTES
    return num * buffers.size_bytes + min(num * buffers.tcp_bytes, machine_bytes)


def _tree(root: int) -> list[int]:
    found: list[int] = []
    waiting = [root]
    while waiting and len(found) < MAX_PROCESSES:
        pid = waiting.pop()
        found.append(pid)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                    waiting += map(int, file.read().split())
    return found


def _measured(pid: int) -> tuple[int, int]:
    """The resident size of a process and the id under which it is told: another thread's where the first has ended."""
    tasks = {pid: _resident(pid)}
    if not tasks[pid]:
        with contextlib.suppress(OSError):
            tasks |= {int(task): _resident(int(task)) for task in os.listdir(f"/proc/{pid}/task")}
    return max(tasks.items(), key=itemgetter(1))


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
    except (OSError, StopIteration):
        return _resident(pid)
