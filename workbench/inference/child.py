"""One model process as its parent sees it: started, asked one thing at a time, watched, ended. It is not started again.

Not here: who asks when, and what after a crash (``process``).
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import IO, Any

from workbench.domain import errors
from workbench.domain.crash import read_crash
from workbench.domain.errors import NO_ANSWER, OUT_OF_MEMORY, NativeCrash
from workbench.inference import frames
from workbench.ports.call import Call, Cancelled

LOG_LINES = 40
LOG_LINE_BYTES = 1000
END_S = 10.0  # in which a killed process ends, unless it waits for a disk

_ENDINGS = {"done", "error", "cancelled", "no_memory"}

OnFrame = Callable[[frames.Frame], None]  # text and numbers of a call, as they come


class Unbegun(Exception):
    """The process had ended before it took the request, with this exit code: another one may be asked."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Child:
    """One process, for one thread at a time (``kill``: any). A call that gets no answer ends the process."""

    def __init__(self, *, patience_s: float, memory_bytes: int) -> None:
        self._patience_s = patience_s
        self._number = 0
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._socket.settimeout(patience_s)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "workbench.inference.host", str(theirs.fileno()), str(memory_bytes)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},  # it would start a debugger
        )  # fmt: skip
        theirs.close()
        assert self._process.stdout is not None
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._reader = threading.Thread(target=_keep, args=(self._process.stdout, self._log), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether ``end`` was called. That the process ended by itself is seen when it is asked."""
        return self._socket.fileno() < 0

    def ask(self, do: str, asked: dict[str, Any], *, given: str, call: Call, on_frame: OnFrame) -> Any:
        """What it answers, or the error that it answers; Cancelled; NativeCrash where it crashes, has no memory or says
        nothing for too long; what ``on_frame`` raises. After the last two the process has ended."""
        self._number += 1
        crashed = f"llama.cpp in {do}"
        begun = False

        def hear(frame: frames.Frame) -> None:
            nonlocal begun
            begun = True
            if isinstance(frame, bytearray) or "text" in frame:
                on_frame(frame)

        try:
            last = self._converse({**asked, "call": self._number, "do": do}, call, hear)
        except TimeoutError:
            self.end()
            said = f"ended after {self._patience_s:g} s without a sign of life"
            raise NativeCrash(crashed, NO_ANSWER, given=given, log=[*self._log, said]) from None
        except BaseException:  # of whoever listens, or a Ctrl-C: the rest of the answer is left in the socket
            self.end()
            raise
        if last is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)  # by itself: its socket ends a little before
            code = self.end()
            if not begun:
                raise Unbegun(code)
            raise _crash(do, code, given, self._log)
        if "no_memory" in last:
            self.end()
            raise NativeCrash(crashed, OUT_OF_MEMORY, given=given, log=[*self._log, last["no_memory"]])
        return _read(last)

    def account(self, do: str, error: Unbegun, given: str) -> NativeCrash:
        """Of a process that ended before it took its first request."""
        return _crash(do, error.code, given, self._log)

    def kill(self) -> None:
        """From any thread: whoever asks it hears that it has ended."""
        self._process.kill()

    def end(self) -> int:
        """Gone, whatever it was doing, and nothing of it left here. Its exit code, negative for a signal."""
        self._process.kill()
        code = self._process.wait(END_S)
        self._reader.join(END_S)
        self._socket.close()
        return code

    def _converse(self, request: dict[str, Any], call: Call, hear: OnFrame) -> dict[str, Any] | None:
        """The last message of the call; None where the process ends before."""
        try:
            self._socket.sendall(frames.message(request))
        except BrokenPipeError:
            return None
        with call.tells(self._cancel):
            while (frame := frames.receive(self._socket)) is not None:
                hear(frame)
                if isinstance(frame, dict) and frame.keys() & _ENDINGS:
                    return frame
        return None

    def _cancel(self) -> None:
        """One message. It cannot wait: the request before it was taken, or the watch over its time ends the process."""
        with contextlib.suppress(OSError):
            os.write(self._socket.fileno(), frames.message({"cancel": self._number}))


def _read(last: dict[str, Any]) -> Any:
    if "cancelled" in last:
        raise Cancelled
    if "error" in last:
        told = last["error"]
        kind = getattr(errors, told["kind"])
        assert issubclass(kind, errors.WorkbenchError), told
        raise kind(told["what"], told["hint"])
    return last["done"]


def _crash(do: str, code: int, given: str, log: Iterable[str]) -> NativeCrash:
    said = list(log)
    crash = read_crash(code, said, step=do, library="llama.cpp", given=given)
    return crash or NativeCrash(f"llama.cpp in {do}", f"exit code {code}", given=given, log=said)


def _keep(stream: IO[bytes], log: deque[str]) -> None:
    """The last lines that a process writes; it never waits for a reader."""
    with stream:
        for line in iter(lambda: stream.readline(LOG_LINE_BYTES), b""):
            log.append(line.decode("utf-8", "replace").rstrip())
