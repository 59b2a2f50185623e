"""One stage process: started with a pinned environment in a group of its own, listened to, ended with all it started.

What it says is bounded: a line longer than ``LINE_BYTES`` is cut. Not here: what its events mean to a run (``walk``).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import workbench
from workbench.pipeline.leftovers import end_strays, write_note

LINE_BYTES = 64 << 10
PLAIN_LINES = 100_000  # lines of a stream that are no events; what follows is counted and dropped unread
READ_BYTES = 256 << 10
POLL_S = 0.2  # how soon a request to stop is noticed
DRAIN_ROUNDS = 50  # reads after the end, for what still stands in the pipes

# Variables of whoever runs the workbench that would change what a stage computes, or where git looks.
_DROPPED = (
    "PYTHON", "GIT_", "OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "ATEN_", "ONEDNN_", "DNNL_", "TORCH_", "GGML_",
    "LLAMA_", "RAYON_", "LD_PRELOAD", "RUSTFLAGS", "RUSTC_WRAPPER", "COLUMNS", "LINES", "LANG", "LC_",
)  # fmt: skip


def step_environment(base: Mapping[str, str], *, threads: int, isa: str, scratch: Path) -> dict[str, str]:
    """The environment of a stage: ``base`` without what changes results, and everything pinned that does."""
    kept = {name: value for name, value in base.items() if not name.startswith(_DROPPED)}
    avx2 = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"} if isa == "avx2" else {}
    here = str(Path(workbench.__file__).parent.parent)
    return {
        **kept,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
        "PYTHONPATH": here,
        "PYTHONHASHSEED": "0",
        "PYTHONSAFEPATH": "1",
        "PYTHONUTF8": "1",
        "PYTHONFAULTHANDLER": "1",  # where native code crashes, the log has Python's stack
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # on shared cores a spinning barrier costs five times the speed
        "TOKENIZERS_PARALLELISM": "false",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "SOURCE_DATE_EPOCH": "315532800",  # 1980, the first day that a zip file can tell
        "TMPDIR": str(scratch),
        **avx2,
    }


@dataclass(frozen=True)
class Ended:
    """How a process ended: ``exit_code`` is negative for a signal. ``stopped``: because we were asked to.
    ``last_error``: the last line of its standard error. ``memory_ran_out``: the kernel ended a process of this machine
    for it meanwhile."""

    exit_code: int
    last_error: str
    stopped: bool
    memory_ran_out: bool = False


@dataclass
class Lines:
    """Cuts a stream of bytes into lines of bounded length and, where they are no events, of bounded number."""

    take: Callable[[str], None]
    _rest: bytearray = field(default_factory=bytearray)
    _overlong: bool = False
    _plain: int = 0

    def feed(self, data: bytes) -> None:
        *whole, rest = data.split(b"\n")
        for part in whole:
            if self._plain >= PLAIN_LINES and not self._rest and part[:1] != b"{":
                self._plain += 1
                continue
            self._append(part)
            self._end_line()
        self._append(rest)

    def close(self) -> None:
        if self._rest or self._overlong:
            self._end_line()
        if self._plain > PLAIN_LINES:
            self.take(f"… {self._plain - PLAIN_LINES} more lines dropped")

    def _append(self, part: bytes) -> None:
        room = LINE_BYTES - len(self._rest)
        self._overlong = self._overlong or len(part) > room
        self._rest += part[:room]

    def _end_line(self) -> None:
        text = self._rest.decode(errors="replace") + (" … (cut)" if self._overlong else "")
        self._plain += not text.startswith("{")
        self._rest.clear()
        self._overlong = False
        self.take(text)


def run_process(
    command: Sequence[str],
    *,
    folder: Path,
    working: Path,
    environment: Mapping[str, str],
    on_stdout: Callable[[str, Callable[[], None]], None],
    on_stderr: Callable[[str], None],
    is_stopped: Callable[[], bool],
) -> Ended:
    """Run to the end. ``on_stdout`` gets each line and a function that answers ``ok``; whatever it raises ends the
    process. ``folder`` takes a note of the process, so that a later walker can end it if we die."""
    process = subprocess.Popen(
        command,
        cwd=working,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        bufsize=0,
    )
    scratch = environment.get("TMPDIR", "")
    try:
        write_note(folder / "process.json", process.pid, scratch)
        return _listen(process, on_stdout, on_stderr, is_stopped)
    finally:
        _end_group(process)
        end_strays(scratch)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _listen(
    process: subprocess.Popen[bytes],
    on_stdout: Callable[[str, Callable[[], None]], None],
    on_stderr: Callable[[str], None],
    is_stopped: Callable[[], bool],
) -> Ended:
    assert process.stdout is not None
    assert process.stderr is not None
    answers = process.stdin
    kills_before = _memory_kills()
    last = ""

    def take_error(line: str) -> None:
        nonlocal last
        last = line if line.strip() else last
        on_stderr(line)

    def answer() -> None:
        if answers is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended; its exit code says why
                answers.write(b"ok\n")

    streams = {
        process.stdout.fileno(): Lines(lambda line: on_stdout(line, answer)),
        process.stderr.fileno(): Lines(take_error),
    }
    ending = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            for number in (*streams, ending):
                selector.register(number, selectors.EVENT_READ)
            stopped = _until_end(selector, streams, ending, is_stopped)
            _end_group(process)
            if not stopped:
                _drain(selector, streams, ending)
    finally:
        os.close(ending)
    for lines in streams.values():
        lines.close()
    return Ended(process.returncode, last, stopped, memory_ran_out=_memory_kills() > kills_before)


def _memory_kills() -> int:
    """How many processes the kernel has ended because memory ran out, in whatever group; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _until_end(
    selector: selectors.BaseSelector, streams: Mapping[int, Lines], ending: int, is_stopped: Callable[[], bool]
) -> bool:
    """Read until the process has ended (False) or is to be stopped (True)."""
    while True:
        ready = [key.fd for key, _ in selector.select(POLL_S)]
        for number in ready:
            if number != ending:
                _read(selector, number, streams[number])
        if ending in ready:
            return False
        if is_stopped():
            return True


def _drain(selector: selectors.BaseSelector, streams: Mapping[int, Lines], ending: int) -> None:
    """What the process wrote before it ended. Bounded: a left-over of another group may still hold a pipe open."""
    selector.unregister(ending)
    for _ in range(DRAIN_ROUNDS):
        ready = selector.select(0) if selector.get_map() else []
        if not ready:
            return
        for key, _ in ready:
            _read(selector, key.fd, streams[key.fd])


def _read(selector: selectors.BaseSelector, number: int, lines: Lines) -> None:
    data = os.read(number, READ_BYTES)
    if data:
        lines.feed(data)
    else:
        selector.unregister(number)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill all that is left of the group, before the process's own id can be given to another."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
