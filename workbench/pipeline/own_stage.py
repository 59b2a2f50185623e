"""A workspace's own stage: its command in the sandbox, with what the definition declares besides.

It has the protocol of every stage, with other places: ``/in/step.json`` and the inputs below ``/in`` are read-only, the
output and scratch folders lie below ``/out``, and it stands in ``/in/code``. What it leaves, and each checkpoint while
it still runs, comes back as bytes of plain files. Not here: whether its needs count (``rights``), and what its events
mean to a run (``step``).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workbench.domain.errors import Refused, StageFailed, ToolMissing
from workbench.domain.stage import DEFAULT, StageSpec
from workbench.pipeline.environment import instruction_set
from workbench.pipeline.process import Ended, Lines, step_environment
from workbench.ports.sandbox import Beyond, Job, Limits, Outbox, Outcome, Sandbox, SandboxResult

IN, OUT = "/in", "/out"
OUTPUT, SCRATCH = f"{OUT}/output", f"{OUT}/scratch"
PROCESSES = 256
FILE_BYTES = 1 << 40  # of one file: the disk's limit is less
RUST = ("rustc", "rustdoc", "rustfmt", "clippy-driver")  # one toolchain
TAKE_BACK = ("result.json", "error.json")

OnLine = Callable[[str, Callable[[], None], Callable[[str, Path], None]], None]  # a line, how to answer, how to take


@dataclass
class _Attended:
    """Hears a stage, answers it, and takes what it leaves into ``folder``."""

    spec: StageSpec
    folder: Path
    on_line: OnLine
    on_error: Callable[[str], None]
    last_error: str = field(default="", init=False)
    _replies: int = field(default=0, init=False)
    _outbox: Outbox | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._lines, self._errors = Lines(self._take_line), Lines(self._take_error)

    def stdout(self, data: bytes, outbox: Outbox) -> bytes:
        self._outbox, self._replies = outbox, 0
        self._lines.feed(data)
        return b"ok\n" * self._replies

    def stderr(self, data: bytes) -> None:
        self._errors.feed(data)

    def ended(self, outbox: Outbox, exit_code: int) -> None:
        self._outbox = outbox
        self._lines.close()
        self._errors.close()
        for name in TAKE_BACK:
            self._taken(name, self.folder / name)
        if exit_code == 0:
            self._taken("output", self.folder / "output")

    def take(self, path: str, into: Path) -> None:
        """Copy what stands at a path of the stage's own, which may be anything that it says."""
        inside = path.removeprefix(f"{OUT}/").split("/")
        if not path.startswith(f"{OUT}/") or any(part in ("", ".", "..") or "\0" in part for part in inside):
            raise StageFailed(
                f"{self.spec.name} offered a checkpoint outside its own folders", "write it below `scratch`"
            )
        if not self._taken("/".join(inside), into):
            raise StageFailed(f"{self.spec.name} offered a checkpoint that is not there", "write it before it is told")

    def _taken(self, path: str, into: Path) -> bool:
        assert self._outbox is not None
        try:
            self._outbox.take(path, into)
        except FileNotFoundError:
            return False
        except Refused as error:
            raise StageFailed(f"{self.spec.name} left {error.what}", error.hint) from None
        return True

    def _take_line(self, line: str) -> None:
        self.on_line(line, self._answer, self.take)

    def _answer(self) -> None:
        self._replies += 1

    def _take_error(self, line: str) -> None:
        self.last_error = line if line.strip() else self.last_error
        self.on_error(line)


def beyond(spec: StageSpec) -> str:
    """What a stage may do beyond the sandbox, in words; empty for nothing, and for stages of ours."""
    if not spec.command:
        return ""
    programs = [f"uses the program {tool}" for tool in machine_tools(spec)]
    return ", ".join([*([spec.needs.describe()] if spec.needs else []), *programs])


def run_own(
    spec: StageSpec,
    sandbox: Sandbox | None,
    *,
    folder: Path,
    files: Mapping[str, bytes],
    folders: Mapping[str, Path],
    workers: int,
    on_line: OnLine,
    on_error: Callable[[str], None],
    is_stopped: Callable[[], bool],
) -> Ended:
    """Run to the end; what the stage left lies in ``folder`` then. ToolMissing where there is no sandbox."""
    missing = "this walk was given none" if sandbox is None else sandbox.probe()
    if sandbox is None or missing:
        raise ToolMissing(f"stage {spec.name} is the workspace's own: it runs in a sandbox, and there is none", missing)
    attended = _Attended(spec, folder, on_line, on_error)
    pinned = step_environment({}, threads=workers, isa=instruction_set(), scratch=Path(SCRATCH))
    environment = {name: value for name, value in pinned.items() if name not in ("PATH", "PYTHONPATH")}
    if spec.needs.network:
        environment |= {name: value for name, value in os.environ.items() if name.lower() in _PROXIES}
    job = Job(
        argv=(*spec.command, f"{IN}/step.json"),
        files=files,
        folders=folders,
        limits=_limits(spec),
        toolchain="rust" if set(RUST) & set(spec.tools) else "",
        is_stopped=is_stopped,
        working=f"{IN}/code",
        environment=environment,
        python=spec.libraries,
        tools=machine_tools(spec),
        beyond=Beyond([Path(p) for p in spec.needs.read], [Path(p) for p in spec.needs.write], spec.needs.network),
        out=("output", "scratch"),
        attendant=attended,
        is_answered=spec.checkpoints,
    )
    return _ended(spec, sandbox.run(job), attended)


_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


def machine_tools(spec: StageSpec) -> tuple[str, ...]:
    """The programs that a stage names and the sandbox does not have of its own: somebody may have put them, with
    whatever is in them, on the PATH of whoever runs the hub."""
    named = [tool for tool in spec.tools if tool not in ("python", "python3", *RUST)]
    found = {tool: shutil.which(tool) for tool in named}
    return tuple(tool for tool, path in found.items() if path and not os.path.realpath(path).startswith("/usr/"))


def _limits(spec: StageSpec) -> Limits:
    needs = spec.needs
    time_s = needs.time_s or DEFAULT.time_s
    disk_bytes = (needs.disk_mb or DEFAULT.disk_mb) << 20
    return Limits(
        wall_s=float(time_s),
        cpu_s=time_s * (os.cpu_count() or 1),
        memory_bytes=(needs.memory_mb or DEFAULT.memory_mb) << 20,
        file_bytes=min(FILE_BYTES, disk_bytes),
        processes=PROCESSES,
        disk_bytes=disk_bytes,
    )


def _ended(spec: StageSpec, result: SandboxResult, attended: _Attended) -> Ended:
    limits, last = _limits(spec), attended.last_error
    if result.outcome is Outcome.TIMEOUT:
        raise _over(spec, f"took longer than {limits.wall_s:.0f} s", f"time_s = {2 * int(limits.wall_s)}")
    if result.outcome is Outcome.MEMORY:
        size_mb = limits.memory_bytes >> 20
        raise _over(spec, f"took more than {size_mb} MiB of memory", f"memory_mb = {2 * size_mb}")
    if result.outcome is Outcome.DISK:
        size_mb = limits.disk_bytes >> 20
        raise _over(spec, f"wrote more than {size_mb} MiB, or filled the disk", f"disk_mb = {2 * size_mb}")
    if result.exit_code in (126, 127) and last.startswith("/usr/bin/env:"):
        raise _no_program(spec, result.exit_code)
    code = 128 - result.exit_code if result.outcome is Outcome.KILLED else result.exit_code
    return Ended(code, last, result.outcome is Outcome.STOPPED)


def _over(spec: StageSpec, what: str, declare: str) -> StageFailed:
    return StageFailed(
        f"{spec.name} {what}",
        f"let it take less, or declare in the pipeline, below its command: [stages.needs] {declare}",
    )


def _no_program(spec: StageSpec, exit_code: int) -> ToolMissing:
    program = spec.command[0]
    if exit_code == 126:
        return ToolMissing(
            f"{program!r} is not a program that the sandbox can start",
            "make it executable; a script needs a first line that names its interpreter, such as #!/bin/sh",
        )
    return ToolMissing(
        f"there is no program {program!r} in the sandbox",
        "is it there, and does its first line name an interpreter that is? There are those of the system; name others "
        f'that are on the PATH of the hub where the pipeline names the command: tools = ["{program}"]',
    )
