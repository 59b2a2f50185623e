"""Starting a kept program (git, cargo, pip's settings) within bounds. Not here: untrusted code (see ``sandbox``)."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from workbench.domain.errors import WorldError

OUTPUT_BYTES = 8 << 20


@dataclass(frozen=True)
class Ran:
    code: int
    out: bytes
    err: str  # the last of it


def bounded(argv: Sequence[str], *, memory_bytes: int, cpu_s: int) -> list[str]:
    """The command line that sets the limits of its process tree before it starts ``argv``."""
    shell = 'ulimit -v "$1" -t "$2" -c 0; shift 2; exec "$@"'
    return ["/bin/sh", "-c", shell, "sh", str(memory_bytes // 1024), str(cpu_s), *argv]


def run(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, wall_s: float) -> Ran:
    """Run to the end, or end the whole process group at the wall clock. Output goes to files, so it needs no memory."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            argv, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        try:
            process.wait(wall_s)
        except subprocess.TimeoutExpired:
            raise WorldError(
                f"{Path(argv[0]).name} did not end within {wall_s:g} s", "try again; the other side may be slow"
            ) from None
        finally:
            end(process)
        out.seek(0)
        size = err.seek(0, os.SEEK_END)
        err.seek(max(0, size - 4000))
        return Ran(process.returncode, out.read(OUTPUT_BYTES), err.read().decode("utf-8", "replace"))


def end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of the process group running."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
