"""ast-grep in a process of its own, so that a grammar that crashes or hangs on a text ends no server of ours.

It is started by the first request and again by the first after it has ended. It is given one text at a time, so that
it is known on which one it ended. Not here: what it does (``grammar``), which files are searched (``search``).
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import IO, Any

import workbench
from workbench.domain.crash import read_crash
from workbench.domain.errors import NO_ANSWER, NativeCrash, WorldError

PATIENCE_S = 20.0  # for one text
LOG_BYTES = 64 << 10
_LIBRARY, _STEP = "ast-grep", "a search"


class EngineError(WorldError):
    """The engine gave up, in its own words."""


class Grammars:
    """For any number of threads, one request at a time."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, for `ps`; None where none runs."""
        process = self._process
        return process.pid if process else None

    def wrong_with(self, pattern: str, language: str) -> str:
        """See ``grammar``."""
        return str(self._ask({"pattern": pattern, "language": language}, given="the pattern")["wrong"])

    def find(self, text: str, pattern: str, language: str, limit: int, *, path: str) -> list[dict[str, Any]]:
        """See ``grammar``. NativeCrash where the process crashes or does not answer, EngineError where the engine gives
        up."""
        request = {"pattern": pattern, "language": language, "text": text, "limit": limit}
        answer = self._ask(request, given=path)
        if "error" in answer:
            raise EngineError(f"{path}: {answer['error']}")
        return list(answer["found"])

    def close(self) -> None:
        """End the process; the next request starts another one."""
        with self._lock:
            self._end()

    def _ask(self, request: dict[str, Any], *, given: str) -> dict[str, Any]:
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            watch = _Watch(process, self._patience_s)
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = b""
            except BaseException:  # a Ctrl-C: its answer is still to come, and is nobody's
                self._end()
                raise
            finally:
                watch.cancel()
            if line.endswith(b"\n"):
                return dict(json.loads(line))
            raise self._crash(given, watch.has_killed)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "workbench.refactor.grammar"],
            env={**kept, "PYTHONPATH": str(Path(workbench.__file__).parent.parent), "PYTHONFAULTHANDLER": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # a Ctrl-C in the terminal is for the server
        )
        return self._process

    def _crash(self, given: str, late: bool) -> NativeCrash | EngineError:
        """What is said of a process that did not answer; it has ended then."""
        exit_code, log = self._end()
        if late:
            return NativeCrash(f"{_LIBRARY} in {_STEP}", NO_ANSWER, given=given, log=log)
        crash = read_crash(exit_code, log, step=_STEP, library=_LIBRARY, given=given)
        return crash or EngineError(f"{_LIBRARY} ended on {given}: {log[-1] if log else exit_code}")

    def _end(self) -> tuple[int, list[str]]:
        """Its exit code and its last lines."""
        process, log = self._process, self._log
        self._process = self._log = None
        if process is None or log is None:
            return 0, []
        assert process.stdin is not None
        assert process.stdout is not None
        with log, process.stdin, process.stdout:
            process.kill()
            code = process.wait()
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES))
            return code, log.read().decode(errors="replace").splitlines()


class _Watch(threading.Timer):
    """Kills a process that has not answered in time."""

    def __init__(self, process: subprocess.Popen[bytes], patience_s: float) -> None:
        super().__init__(patience_s, self._kill)
        self.has_killed = False
        self._watched = process
        self.daemon = True
        self.start()

    def _kill(self) -> None:
        self.has_killed = True
        self._watched.kill()


@cache
def shared() -> Grammars:
    """The one of this process, ended with it."""
    made = Grammars()
    atexit.register(made.close)
    return made
