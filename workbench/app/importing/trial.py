"""A model of strangers meets llama.cpp for the first time: in the sandbox, for one token, within bounds.

The sandbox sees the file, an interpreter and the libraries that ``inference`` needs, all read-only, and no network.
Not here: what is asked of the model (``inference.trial``).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import workbench
from workbench.app import wiring
from workbench.config.installed import command_for
from workbench.domain.errors import Corrupt, Refused, ToolMissing, UserError, WorldError
from workbench.ports.sandbox import Job, Limits, Outcome, Sandbox, SandboxResult
from workbench.sandbox import interpreter
from workbench.system.temporary import temporary_folder

Trial: TypeAlias = Callable[[Path], None]  # Refused where the model cannot be opened

READY = b"ready\n"  # as ``inference.trial`` says it; this room does not import llama.cpp
_ENVIRONMENT = {
    "PYTHONPATH": f"{interpreter.PACKAGES}:/in/house", "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1",
    "PYTHONFAULTHANDLER": "1", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1",
}  # fmt: skip
_FORCED = "WORKBENCH_LLAMA_VARIANT"  # who forces it means every process
_JUDGED = (
    Corrupt.exit_code,
    UserError.exit_code,
    Refused.exit_code,
)  # llama.cpp refuses the file
_CRASHED = (
    "it was not imported. If `workbench doctor` finds llama.cpp in order here, the file is damaged or made to do this"
)
BASE_BYTES = 3 << 30  # of address space for the interpreter and its libraries, besides the model
SLOWEST_BYTES_PER_S = 32 << 20  # a model is read once


def in_sandbox(model: Path, sandbox: Sandbox | None = None) -> None:
    """Open ``model`` in the sandbox and generate one token. Refused where llama.cpp finds it invalid; NativeCrash where
    llama.cpp crashes on it, takes more memory than a model of its size may, or does not come to an end; ToolMissing,
    with the command that installs it, where there is no sandbox or no llama.cpp."""
    sandbox = sandbox or wiring.sandbox()
    missing = sandbox.probe()
    if missing:
        raise ToolMissing(f"a model of strangers is opened in a sandbox first, and there is none: {missing}")
    if importlib.util.find_spec("llama_cpp") is None:
        raise ToolMissing("llama-cpp-python is not installed", f"install it: {command_for('llama-cpp-python')}")
    with temporary_folder("trial") as folder:
        folder.chmod(0o755)  # the sandbox is another user
        interpreter.put(model, folder / "model" / "model.gguf")
        job = Job(
            argv=("python", "-P", "-m", "workbench.inference.trial", "/in/model/model.gguf"),
            python=("llama-cpp-python",),
            folders={"model": folder / "model", "house/workbench": Path(workbench.__file__).parent},
            environment=_ENVIRONMENT | {name: os.environ[name] for name in (_FORCED,) if name in os.environ},
            limits=limits_for(model.stat().st_size),
        )
        result = sandbox.run(job)
    if not result.stdout.startswith(READY):  # the file has not been looked at: it is not its fault
        raise WorldError(f"llama.cpp cannot be started in the sandbox: {_last_line(result)}", "`workbench doctor`")
    if crash := result.crash("import", library="llama.cpp", given=model.name, hint=_CRASHED):
        raise crash
    if result.exit_code in _JUDGED:
        what = f"{model.name} is refused: it cannot be opened: {_last_line(result)}"
        raise Refused(what, "get the file again from a source you trust")
    if result.outcome is not Outcome.EXITED or result.exit_code != 0:
        raise WorldError(f"{model.name} could not be tried: {_last_line(result)}", "`workbench doctor` tries llama.cpp")


def limits_for(size_bytes: int) -> Limits:
    """What opening a model of this size may take."""
    seconds = 60 + size_bytes // SLOWEST_BYTES_PER_S
    return Limits(wall_s=float(seconds), cpu_s=2 * seconds, memory_bytes=BASE_BYTES + 2 * size_bytes)


def _last_line(result: SandboxResult) -> str:
    """The end of what a process said over which a stranger may have had power."""
    said = result.stderr.decode("utf-8", "replace").strip().splitlines()
    return "".join(c if c.isprintable() else " " for c in said[-1][:300]) if said else "it does not say why"
