"""A model of strangers meets llama.cpp for the first time: in the sandbox, for one token, within bounds.

The sandbox sees the file, an interpreter and the libraries that ``inference`` needs, all read-only, and no network.
Not here: what is asked of the model (``inference.trial``).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import workbench
from workbench.app import wiring
from workbench.config.temporary import temporary_folder
from workbench.domain.errors import Refused, ToolMissing, WorldError
from workbench.ports.sandbox import Job, Limits, Outcome, Sandbox, SandboxResult

Trial: TypeAlias = Callable[[Path], None]  # Refused where the model cannot be opened

READY = b"ready\n"  # as ``inference.trial`` says it; this room does not import llama.cpp
_MODULES = ("llama_cpp", "numpy", "diskcache", "jinja2", "markupsafe", "typing_extensions")
_UNWANTED = ("site-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3")
_ENVIRONMENT = (
    "PYTHONPATH=/in/run/packages", "LD_LIBRARY_PATH=/in/run/python/lib", "PYTHONDONTWRITEBYTECODE=1",
    "PYTHONNOUSERSITE=1", "OMP_NUM_THREADS=2", "OPENBLAS_NUM_THREADS=1",
)  # fmt: skip
BASE_BYTES = 3 << 30  # of address space for the interpreter and its libraries, besides the model
SLOWEST_BYTES_PER_S = 32 << 20  # a model is read once


def in_sandbox(model: Path, sandbox: Sandbox | None = None) -> None:
    """Open ``model`` in the sandbox and generate one token. Refused, with what happened, unless it goes well;
    ToolMissing, with the command that installs it, where there is no sandbox or no llama.cpp."""
    sandbox = sandbox or wiring.sandbox()
    missing = sandbox.probe()
    if missing:
        raise ToolMissing(f"a model of strangers is opened in a sandbox first, and there is none: {missing}")
    if importlib.util.find_spec("llama_cpp") is None:
        raise ToolMissing("llama-cpp-python is not installed", "pip install 'git-workbench[inference]'")
    with temporary_folder("trial") as folder:
        folder.chmod(0o755)  # the sandbox is another user
        _put(model, folder / "model" / "model.gguf")
        python = _runtime(folder / "run")
        argv = ("/usr/bin/env", *_ENVIRONMENT, python, "-P", "-m", "workbench.inference.trial", "/in/model/model.gguf")
        folders = {"model": folder / "model", "run": folder / "run"}
        result = sandbox.run(Job(argv=argv, folders=folders, limits=limits_for(model.stat().st_size)))
    if not result.stdout.startswith(READY):  # the file has not been looked at: it is not its fault
        raise WorldError(f"llama.cpp cannot be started in the sandbox: {_last_line(result)}", "`workbench doctor`")
    if result.outcome is not Outcome.EXITED or result.exit_code != 0:
        raise Refused(f"{model.name} is refused: {_verdict(result)}", "get the file again from a source you trust")


def limits_for(size_bytes: int) -> Limits:
    """What opening a model of this size may take."""
    seconds = 60 + size_bytes // SLOWEST_BYTES_PER_S
    return Limits(wall_s=float(seconds), cpu_s=2 * seconds, memory_bytes=BASE_BYTES + 2 * size_bytes)


def _last_line(result: SandboxResult) -> str:
    """The end of what a process said over which a stranger may have had power."""
    said = result.stderr.decode("utf-8", "replace").strip().splitlines()
    return "".join(c if c.isprintable() else " " for c in said[-1][:300]) if said else "it does not say why"


def _verdict(result: SandboxResult) -> str:
    match result.outcome:
        case Outcome.EXITED:
            return f"it cannot be opened: {_last_line(result)}"
        case Outcome.TIMEOUT:
            return f"llama.cpp had not opened it after {result.wall_s:.0f} s"
        case Outcome.MEMORY:
            return "llama.cpp needs more memory for it than a model of its size does"
    return f"llama.cpp crashed on it ({_signal(result.exit_code)}): {_last_line(result)}"


def _signal(exit_code: int) -> str:
    try:
        return signal.Signals(exit_code - 128).name
    except ValueError:
        return f"exit {exit_code}"


def _runtime(folder: Path) -> str:
    """Put what the trial runs on into ``folder``; the interpreter's path inside."""
    for source in _packages():
        _put(source, folder / "packages" / source.name)
    base = Path(sys.base_prefix)
    if base.is_relative_to("/usr"):  # the sandbox has it
        return os.path.realpath(sys.executable)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    _put(Path(os.path.realpath(sys.executable)), folder / "python" / "bin" / name)
    for library in (base / "lib").glob("*.so*"):  # its own, and where a distribution brings them those it needs
        _put(library, folder / "python" / "lib" / library.name)
    _put(base / "lib" / name, folder / "python" / "lib" / name)
    return f"/in/run/python/bin/{name}"


def _packages() -> Iterator[Path]:
    """Files and folders of the libraries that opening a model imports, and of the workbench."""
    yield Path(workbench.__file__).parent
    for name in _MODULES:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            continue
        origin = Path(found.origin)
        package = origin.parent if found.submodule_search_locations else origin
        yield package
        libraries = package.with_name(f"{name}.libs")  # where wheels keep shared libraries
        if libraries.is_dir():
            yield libraries


def _put(source: Path, target: Path) -> None:
    """A file or folder for any user to read: linked where that does, else copied. Nothing of the source changes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        target.mkdir(exist_ok=True)
        for inside in sorted(source.iterdir()):
            if inside.name not in _UNWANTED:
                _put(inside, target / inside.name)
        return
    real = Path(os.path.realpath(source))
    if not real.is_file():
        return
    mode = real.stat().st_mode
    if mode & 0o004:
        try:
            os.link(real, target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(real, target)
    target.chmod(0o755 if mode & 0o100 else 0o644)
