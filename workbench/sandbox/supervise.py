"""Watching one jailed process tree to its end: clock, memory, output caps, and the certainty that nothing is left.

The tree lives in a process-id namespace whose first process bubblewrap names on the status channel. When that process
has ended, the kernel has ended every other one in the namespace, whatever it ignored or detached from. What the tree
holds, and what of it is not seen, is ``memory.py``'s.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from workbench.domain.errors import WorldError
from workbench.ports.sandbox import Job, Outcome
from workbench.sandbox.disk import DiskWatch
from workbench.sandbox.memory import Kept, tree_exceeds

POLL_S = 0.02  # between two looks at the tree's memory
END_S = 10.0  # a killed namespace that takes longer than this is a fault of the machine


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


class Passed:
    """A pipe's reading end whose bytes go to somebody as they come; ``muted``, to nobody."""

    def __init__(self, fd: int, take: Callable[[bytes], object]) -> None:
        os.set_blocking(fd, False)
        self.fd, self._take, self.muted = fd, take, False
        self.data, self.truncated = b"", False  # nothing is kept

    def read(self) -> bool:
        try:
            piece = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return True
        if piece and not self.muted:
            self._take(piece)
        return bool(piece)


@dataclass(frozen=True)
class Listening:
    """Who gets what the job writes, as it comes; what ``stdout`` returns goes to ``answers``."""

    stdout: Callable[[bytes], bytes]
    stderr: Callable[[bytes], None]
    answers: int = -1  # the writing end of the job's standard input, where it is answered

    def heard(self, data: bytes) -> None:
        reply = self.stdout(data)
        if reply and self.answers >= 0:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):  # it does not read its answers
                os.write(self.answers, reply)


class Gate:
    """Our end of what the jail waits at before the job begins: it says that it stands, and we that we are there.

    ``on_standing`` is what is done in between: the jail is whole, and the job has not begun."""

    def __init__(self, end: socket.socket, on_standing: Callable[[], None]) -> None:
        end.setblocking(False)
        self.fd, self._end, self._on_standing = end.fileno(), end, on_standing
        self.shut = False  # the outcome is there: a job that has not begun does not begin

    def read(self) -> bool:
        """Answer the jail, once; False: there is nothing more to wait for."""
        try:
            stands = self._end.recv(1)
        except BlockingIOError:
            return True
        except OSError:  # the jail has gone: its builder says why
            return False
        if stands and not self.shut:
            self._on_standing()
            with contextlib.suppress(OSError):  # it has gone since
                self._end.send(b"\n")
        return False


class Stream(Protocol):
    """What the watch waits on: a descriptor, and what is done when it can be read (False: no more)."""

    fd: int

    def read(self) -> bool: ...


def supervise(
    argv: Sequence[str],
    *,
    job: Job,
    stdin: int,
    status: tuple[int, int],
    gate: tuple[socket.socket, socket.socket],
    collect: tuple[int, int] | None,
    collect_bytes: int,
    pass_fds: Iterable[int],
    listening: Listening | None = None,
    disk: DiskWatch | None = None,
) -> Ending:
    """Start ``argv`` and return when its whole tree has gone. ``status`` and ``collect`` are pipes (read, write),
    ``gate`` the two ends of what the jail waits at (ours, the jail's); all ends are closed here."""
    start = time.monotonic()
    limits = job.limits
    with contextlib.ExitStack() as reading:
        reading.enter_context(gate[0])
        for pipe in (status, collect):
            if pipe:
                reading.callback(os.close, pipe[0])
        try:
            process = _spawn(argv, stdin, pass_fds)
        finally:
            gate[1].close()
            for pipe in (status, collect):
                if pipe:
                    os.close(pipe[1])
        reading.callback(_reap, process)
        streams = Streams(process, status=status[0], limit=limits.output_bytes, listening=listening)
        sent = Capped(collect[0], collect_bytes) if collect else None
        kept = reading.enter_context(Kept())

        def look_in() -> None:
            streams.status.read()  # bubblewrap has named the first process before it let it build the jail
            first = _status(streams.status, "child-pid")
            kept.open(first, out_on_disk=disk is not None, network=job.beyond.network)

        def is_over() -> Outcome | None:
            if tree_exceeds(process.pid, limits.memory_bytes, kept):
                return Outcome.MEMORY
            return Outcome.DISK if disk is not None and disk.exceeded() else None

        entrance = Gate(gate[0], look_in)
        with _Watch(process.pid, [entrance, *streams.all(), *([sent] if sent else [])]) as watch:
            try:
                outcome = _observe(watch, is_over, start + limits.wall_s, job.is_stopped)
            except BaseException:
                streams.mute()
                raise
            finally:
                entrance.shut = True
                streams.status.read()
                watch.end_tree(_status(streams.status, "child-pid"))
    code = _status(streams.status, "exit-code")
    if outcome is Outcome.EXITED and code is not None and 128 < code <= 128 + 64:
        outcome = Outcome.KILLED
    return Ending(
        outcome=outcome,
        exit_code=code if outcome in (Outcome.EXITED, Outcome.KILLED) and code is not None else -1,
        stdout=bytes(streams.stdout.data),
        stderr=bytes(streams.stderr.data),
        collected=bytes(sent.data) if sent else b"",
        truncated=streams.stdout.truncated or streams.stderr.truncated,
        started=code is not None or outcome is not Outcome.EXITED,
        wall_s=time.monotonic() - start,
    )


class Streams:
    """What the tree and its builder say: output, errors, and the builder's report."""

    def __init__(
        self, process: subprocess.Popen[bytes], *, status: int, limit: int, listening: Listening | None
    ) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        out, err = process.stdout.fileno(), process.stderr.fileno()
        self.stdout: Capped | Passed = Passed(out, listening.heard) if listening else Capped(out, limit)
        self.stderr: Capped | Passed = Passed(err, listening.stderr) if listening else Capped(err, limit)
        self.status = Capped(status, 1 << 16)

    def all(self) -> list[Capped | Passed]:
        return [self.stdout, self.stderr, self.status]

    def mute(self) -> None:
        """Nobody wants to hear the rest."""
        for stream in (self.stdout, self.stderr):
            if isinstance(stream, Passed):
                stream.muted = True


def _spawn(argv: Sequence[str], stdin: int, pass_fds: Iterable[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin"},
        cwd="/",
        close_fds=True,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
    )


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing behind, also when we were interrupted ourselves."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(END_S)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _observe(
    watch: _Watch, is_over: Callable[[], Outcome | None], deadline: float, is_stopped: Callable[[], bool]
) -> Outcome:
    """Wait for the builder's end, for a limit, or until it is to stop."""
    while not watch.ended:
        left = deadline - time.monotonic()
        if left <= 0:
            return Outcome.TIMEOUT
        watch.wait(min(left, POLL_S))
        if not watch.ended and (over := is_over()):
            return over
        if not watch.ended and is_stopped():
            return Outcome.STOPPED
    return Outcome.EXITED


class _Watch:
    """Waits on a process and its pipes at once, and ends the tree."""

    def __init__(self, pid: int, streams: Iterable[Stream]) -> None:
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
        """Kill the namespace by its first process, let the builder reap it, and drain the pipes to their end."""
        if not self.ended and not _kill_child(self._pid, first):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
        deadline = time.monotonic() + END_S
        while self._selector.get_map() and time.monotonic() < deadline:
            self.wait(0.1)
        if not self.ended:
            raise WorldError("a sandbox could not be ended", "a process hangs in the kernel: see dmesg")


def _kill_child(builder: int, child: int | None) -> bool:
    """SIGKILL to ``child`` if it is still the builder's: a process id may have been given to somebody else."""
    if child is None:
        return False
    try:
        fd = os.pidfd_open(child)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{child}/stat", "rb") as file:
            parent = int(file.read().rpartition(b")")[2].split()[1])
        if parent == builder:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        return parent == builder
    except (FileNotFoundError, ProcessLookupError):
        return False
    finally:
        os.close(fd)


def _status(stream: Capped, key: str) -> int | None:
    """A number that bubblewrap reported; the job cannot write to this channel."""
    for line in bytes(stream.data).splitlines():
        with contextlib.suppress(ValueError):
            report = json.loads(line)
            if key in report:
                return int(report[key])
    return None
