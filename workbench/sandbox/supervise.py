"""Watching one jailed process tree to its end: clock, memory, output caps, and the certainty that nothing is left.

The tree lives in a process-id namespace whose first process bubblewrap names on the status channel. When that process
has ended, the kernel has ended every other one in the namespace, whatever it ignored or detached from. Not covered:
memory between two looks (20 ms), which each process's own RLIMIT_AS bounds.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workbench.domain.errors import WorldError
from workbench.ports.sandbox import Limits, Outcome

POLL_S = 0.02  # between two looks at the tree's memory
END_S = 10.0  # a killed namespace that takes longer than this is a fault of the machine
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MAX_PROCESSES = 4096  # a bound for walking the tree, far above every limit


@dataclass(frozen=True)
class Ending:
    outcome: Outcome
    exit_code: int
    stdout: bytes
    stderr: bytes
    collected: bytes
    truncated: bool
    started: bool  # the job's program ran at all; else stderr is the jail builder's
    wall_s: float


class Capped:
    """A pipe's reading end that keeps the first ``limit`` bytes and drains the rest."""

    def __init__(self, fd: int, limit: int) -> None:
        os.set_blocking(fd, False)
        self.fd, self.limit, self.data, self.truncated = fd, limit, bytearray(), False

    def read(self) -> bool:
        """Take what is there; False at the end of the stream."""
        try:
            piece = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return True
        room = self.limit - len(self.data)
        self.data += piece[:room]
        self.truncated |= len(piece) > room
        return bool(piece)


def supervise(
    argv: Sequence[str],
    *,
    limits: Limits,
    stdin: int,
    status: tuple[int, int],
    collect: tuple[int, int] | None,
    collect_bytes: int,
    pass_fds: Iterable[int],
) -> Ending:
    """Start ``argv`` and return when its whole tree has gone. ``status`` and ``collect`` are pipes (read, write); both
    ends are closed here."""
    start = time.monotonic()
    try:
        process = subprocess.Popen(
            argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PATH": "/usr/bin:/bin"}, cwd="/",
            close_fds=True, pass_fds=tuple(pass_fds), start_new_session=True,
        )  # fmt: skip
    except OSError:
        for fd in (*status, *(collect or ())):
            os.close(fd)
        raise
    os.close(status[1])
    if collect:
        os.close(collect[1])
    assert process.stdout is not None and process.stderr is not None
    streams = {
        "stdout": Capped(process.stdout.fileno(), limits.output_bytes),
        "stderr": Capped(process.stderr.fileno(), limits.output_bytes),
        "status": Capped(status[0], 1 << 16),
    }
    if collect:
        streams["collect"] = Capped(collect[0], collect_bytes)
    outcome = Outcome.EXITED
    try:
        with _Watch(process.pid, streams.values()) as watch:
            deadline = start + limits.wall_s
            while not watch.ended:
                left = deadline - time.monotonic()
                if left <= 0:
                    outcome = Outcome.TIMEOUT
                    break
                watch.wait(min(left, POLL_S))
                if tree_exceeds(process.pid, limits.memory_bytes):
                    outcome = Outcome.MEMORY
                    break
            watch.end_tree(_first_process(streams["status"]))
            process.wait(END_S)
    finally:
        if process.poll() is None:  # only when we were interrupted ourselves
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(END_S)
        process.stdout.close()
        process.stderr.close()
        os.close(status[0])
        if collect:
            os.close(collect[0])
    code = _exit_code(streams["status"])
    if outcome is Outcome.EXITED and code is not None and 128 < code <= 128 + 64:
        outcome = Outcome.KILLED
    return Ending(
        outcome=outcome,
        exit_code=code if outcome in (Outcome.EXITED, Outcome.KILLED) and code is not None else -1,
        stdout=bytes(streams["stdout"].data),
        stderr=bytes(streams["stderr"].data),
        collected=bytes(streams["collect"].data) if collect else b"",
        truncated=streams["stdout"].truncated or streams["stderr"].truncated,
        started=code is not None or outcome is not Outcome.EXITED,
        wall_s=time.monotonic() - start,
    )


class _Watch:
    """Waits on a process and its pipes at once, and ends the tree."""

    def __init__(self, pid: int, streams: Iterable[Capped]) -> None:
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pidfd, selectors.EVENT_READ)
        for stream in streams:
            self._selector.register(stream.fd, selectors.EVENT_READ, stream)
        self.ended = False

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        os.close(self._pidfd)

    def wait(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                self.ended = True
                self._selector.unregister(key.fd)
            elif not key.data.read():
                self._selector.unregister(key.fd)

    def end_tree(self, first: int | None) -> None:
        """Kill builder and namespace, and drain the pipes until no process is left that could write to them."""
        namespace = _open_pid(first)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        if namespace is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(namespace, signal.SIGKILL)
            gone = selectors.DefaultSelector()
            gone.register(namespace, selectors.EVENT_READ)
            try:
                if not gone.select(END_S):
                    raise WorldError("a sandbox could not be ended", "a process hangs in the kernel: see dmesg")
            finally:
                gone.close()
                os.close(namespace)
        deadline = time.monotonic() + END_S
        while self._selector.get_map() and time.monotonic() < deadline:
            self.wait(0.1)


def _open_pid(pid: int | None) -> int | None:
    try:
        return None if pid is None else os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _status(stream: Capped, key: str) -> int | None:
    """A number that bubblewrap reported; the job cannot write to this channel."""
    for line in bytes(stream.data).splitlines():
        with contextlib.suppress(ValueError):
            report = json.loads(line)
            if key in report:
                return int(report[key])
    return None


def _first_process(stream: Capped) -> int | None:
    stream.read()
    return _status(stream, "child-pid")


def _exit_code(stream: Capped) -> int | None:
    return _status(stream, "exit-code")


def tree_exceeds(root: int, limit_bytes: int) -> bool:
    """Whether a tree holds more than ``limit_bytes``. Resident sizes are cheap and count shared pages many times, so
    the proportional sizes are read only when the resident ones are already too many."""
    pids = _tree(root)
    if sum(map(_resident, pids)) <= limit_bytes:
        return False
    return sum(map(_proportional, pids)) > limit_bytes


def _tree(root: int) -> list[int]:
    found, waiting = [], [root]
    while waiting and len(found) < MAX_PROCESSES:
        pid = waiting.pop()
        found.append(pid)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                    waiting += map(int, file.read().split())
    return found


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
