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
    DISK = "disk"  # what it wrote into its disk folder, or the disk itself


@dataclass(frozen=True)
class Limits:
    wall_s: float = 10.0
    cpu_s: int = 10
    memory_bytes: int = 2 << 30  # of the whole tree, with the files that it writes and the most its sockets can hold
    file_bytes: int = 64 << 20
    processes: int = 64
    output_bytes: int = 64 << 10  # of stdout and of stderr; the rest is dropped and ``truncated`` set
    tmp_bytes: int = 256 << 20
    disk_bytes: int = 0  # of /out: 0 keeps it in memory, within ``tmp_bytes``; else it is a folder on disk
    disk_files: int = 1_000_000


class Outbox(Protocol):
    """What a job with a /out on disk has left there, to be taken as data."""

    def take(self, path: str, into: Path) -> None:
        """Copy a file, or a folder with all in it, to a place that is not there yet: bytes and names alone, within the
        job's limits. Refused where something else is in it; FileNotFoundError where neither a file nor a folder is.
        The job may still run."""
        ...


class Attendant(Protocol):
    """Whoever listens to a job while it runs. What it raises ends the job."""

    def stdout(self, data: bytes, outbox: Outbox) -> bytes:
        """The next bytes that the job wrote; what is returned it reads, where it is answered."""
        ...

    def stderr(self, data: bytes) -> None: ...
    def ended(self, outbox: Outbox, exit_code: int) -> None:
        """Nothing of the job runs any more. ``exit_code`` is -1 where it did not end by itself."""
        ...


@dataclass(frozen=True)
class Beyond:
    """What of this machine a job may use besides its own: nothing."""

    read: Sequence[Path] = ()  # folders and files, at their own places
    write: Sequence[Path] = ()  # folders, at their own places
    network: bool = False  # this machine's, with whatever listens there


@dataclass(frozen=True)
class Job:
    """A command, and the files it sees below ``/in``. Its environment is small and fixed."""

    argv: Sequence[str]
    files: Mapping[str, bytes] = field(default_factory=dict)  # path below /in -> content
    folders: Mapping[str, Path] = field(default_factory=dict)  # path below /in -> host folder, read-only
    stdin: bytes = b""
    collect: Sequence[str] = ()  # paths below /out to bring back, as bytes
    out: Sequence[str] = ()  # empty folders that are below a /out on disk when it begins
    limits: Limits = Limits()
    toolchain: str = ""  # "rust": the Rust toolchain's folder is bound read-only and on PATH
    is_stopped: Callable[[], bool] = field(default=lambda: False, compare=False)  # asked now and then while it runs
    working: str = "/tmp"
    environment: Mapping[str, str] = field(default_factory=dict)
    python: Sequence[str] | None = None  # our interpreter is on PATH, with these distributions and what they require
    tools: Sequence[str] = ()  # programs of this machine's PATH that are on the job's
    beyond: Beyond = Beyond()
    attendant: Attendant | None = field(default=None, compare=False)  # output goes to it, and is not in the result
    is_answered: bool = False  # what the attendant returns is the standard input, which does not end; else it is empty


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
            return NativeCrash(f"{library} in {step}" if library else step, ended, given=given, log=log)
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
