"""Running code that we did not write. Adapter: ``workbench.sandbox`` (bubblewrap and rlimits)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from workbench.domain.crash import read_crash
from workbench.domain.errors import NO_ANSWER, OUT_OF_MEMORY, NativeCrash


class Outcome(StrEnum):
    EXITED = "exited"  # by itself; see exit_code
    TIMEOUT = "timeout"  # wall clock
    MEMORY = "memory"  # the tree's memory
    KILLED = "killed"  # by a signal of its own making (SIGSEGV, CPU limit, …)
    STOPPED = "stopped"  # by whoever started it


@dataclass(frozen=True)
class Limits:
    wall_s: float = 10.0
    cpu_s: int = 10
    memory_bytes: int = 2 << 30  # of the whole tree, with the files that it writes and the most its sockets can hold
    file_bytes: int = 64 << 20
    processes: int = 64
    output_bytes: int = 64 << 10  # of stdout and of stderr; the rest is dropped and ``truncated`` set
    tmp_bytes: int = 256 << 20


@dataclass(frozen=True)
class Job:
    """A command, and the files it sees below ``/in``. No network, no environment but a small fixed one."""

    argv: Sequence[str]
    files: Mapping[str, bytes] = field(default_factory=dict)  # path below /in -> content
    folders: Mapping[str, Path] = field(default_factory=dict)  # path below /in -> host folder, read-only
    stdin: bytes = b""
    collect: Sequence[str] = ()  # paths below /out to bring back, as bytes
    limits: Limits = Limits()
    toolchain: str = ""  # "rust": the Rust toolchain's folder is bound read-only and on PATH
    is_stopped: Callable[[], bool] = field(default=lambda: False, compare=False)  # asked now and then while it runs


@dataclass(frozen=True)
class SandboxResult:
    outcome: Outcome
    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool
    wall_s: float
    collected: Mapping[str, bytes] = field(default_factory=dict)

    def crash(self, step: str, *, library: str = "", given: str = "", hint: str = "") -> NativeCrash | None:
        """What ended the job's program, where it did not end by itself; None where it did, or where we stopped it."""
        log = (self.stdout + self.stderr).decode(errors="replace").splitlines()
        if self.outcome in (Outcome.TIMEOUT, Outcome.MEMORY):
            ended = NO_ANSWER if self.outcome is Outcome.TIMEOUT else OUT_OF_MEMORY
            return NativeCrash(f"{library} in {step}" if library else step, ended, given=given, log=log, hint=hint)
        return read_crash(self.exit_code, log, step=step, library=library, given=given, hint=hint)


class Sandbox(Protocol):
    def probe(self) -> str:
        """ "" when untrusted code can be run, else what is missing and the command that installs it."""
        ...

    def run(self, job: Job) -> SandboxResult:
        """Run to its end or limit; the whole process tree is gone when it returns. ToolMissing when the probe fails:
        there is no unconfined fallback."""
        ...

    def map(self, jobs: Sequence[Job], workers: int = 1) -> Sequence[SandboxResult]:
        """Many jobs, each in a slot of its own; results in the order of the jobs."""
        ...
