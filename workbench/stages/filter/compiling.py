"""Asking rustc, in the sandbox, whether a file compiles by itself. Most need other crates: that is recorded, not held
against them. Lints keep their caps: without them a constant can be made to compute for ever."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from workbench.domain.errors import ToolMissing
from workbench.ports.sandbox import Job, Limits, Outcome, Sandbox, SandboxResult

BATCH = 64
LIMITS = Limits(wall_s=10.0, cpu_s=10, memory_bytes=1 << 30, output_bytes=32 << 10)
# What a file alone cannot have: other crates, modules in other files, their macros and derives.
UNRESOLVED = frozenset(
    ["E0432", "E0433", "E0463", "E0583", "E0405", "E0412", "E0425", "E0404", "E0407", "E0437", "E0438"]
)
_CODE = re.compile(rb"^error\[(E\d{4})\]", re.MULTILINE)
_ERROR = re.compile(rb"^error(?:\[E\d{4}\])?: (.*)", re.MULTILINE)
_OTHERS = (
    b"cannot find macro",
    b"cannot find attribute",
    b"cannot find derive",
    b"aborting due to",
    b"couldn't read",
    b"Could not compile",
)


def check(sandbox: Sandbox, files: Sequence[Path], *, edition: str, workers: int) -> Iterator[tuple[str, str]]:
    """For each file ``(status, detail)``: ok, unresolved, error or timeout. ToolMissing where there is no sandbox."""
    if missing := sandbox.probe():
        raise ToolMissing(f"the compile check needs the sandbox: {missing}", 'or run with `compile = "off"`')
    for start in range(0, len(files), BATCH):
        jobs = [_job(path, edition) for path in files[start : start + BATCH]]
        for result in sandbox.map(jobs, workers):
            yield _verdict(result)


def _job(path: Path, edition: str) -> Job:
    argv = (
        "rustc",
        f"--edition={edition}",
        "--crate-type=lib",
        "--emit=metadata",
        "-o",
        "/out/checked.rmeta",
        "/in/checked.rs",
    )
    return Job(argv=argv, files={"checked.rs": path.read_bytes()}, limits=LIMITS, toolchain="rust")


def _verdict(result: SandboxResult) -> tuple[str, str]:
    if result.outcome is not Outcome.EXITED:
        return "timeout" if result.outcome is Outcome.TIMEOUT else "error", str(result.outcome)
    if result.exit_code == 0:
        return "ok", ""
    codes = [code.decode() for code in _CODE.findall(result.stderr)]
    if any(code in UNRESOLVED for code in codes) or any(other in result.stderr for other in _OTHERS[:3]):
        return "unresolved", ", ".join(sorted(set(codes)))
    messages = [m.decode("utf-8", "replace") for m in _ERROR.findall(result.stderr)]
    return "error", (codes[0] if codes else messages[0][:100] if messages else f"exit code {result.exit_code}")
