"""What a stage's output depends on besides its code: versions of libraries and tools; for training the machine's class;
where a model is judged or packaged, the CPU variant of llama.cpp.

Not here: the variables that a stage process is started with (``process``).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

from workbench.config.installed import command_for
from workbench.domain.errors import ToolMissing, UserError
from workbench.domain.stage import Params, StageSpec
from workbench.pipeline.process import step_environment
from workbench.system.programs import Program, look


class Tools:
    """Programs as a step would find them, each asked once."""

    def __init__(self) -> None:
        self._environment = step_environment(os.environ, threads=1, isa="", scratch=Path(tempfile.gettempdir()))
        self._known: dict[str, Program] = {}
        self._variant: str | None = None

    def look(self, name: str) -> Program:
        if name not in self._known:
            self._known[name] = look(name, self._environment)
        return self._known[name]

    def llama_variant(self) -> str:
        """The CPU variant that llama.cpp takes here, as a step would find it; asked of a process of its own."""
        if self._variant is None:
            command = [sys.executable, "-m", "workbench.inference.variants"]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, env=self._environment, cwd="/"
            )
            if done.returncode not in (0, ToolMissing.exit_code):
                what, _, hint = done.stderr.decode(errors="replace").strip().partition("\n")
                raise UserError(what, hint.strip())
            self._variant = done.stdout.decode().strip() or "absent"
        return self._variant

    def version(self, name: str) -> str:
        """What it answers; a tool that answers nothing useful counts by its size."""
        found = self.look(name)
        if not found.path:
            return "absent"
        return found.version or f"unknown ({os.stat(found.path).st_size} bytes)"


def environment_of(
    spec: StageSpec, threads: int, params: Params = MappingProxyType({}), tools: Tools | None = None
) -> dict[str, str]:
    """Name -> version, for the manifest and the action key. ToolMissing when a declared library is not installed."""
    tools = tools or Tools()
    found = {"format": str(spec.output_format)}
    if not spec.command:
        found["python"] = f"{sys.version_info.major}.{sys.version_info.minor}"
    for library in spec.libraries:
        found[library] = _library(library, spec.name)
    for tool in spec.all_tools(params):
        found[tool] = tools.version(tool)
    if spec.llama:
        found["llama.cpp variant"] = tools.llama_variant()
    if spec.hardware:
        found["isa"] = instruction_set()
        found["threads"] = str(threads)
    return found


@cache
def instruction_set() -> str:
    """The class that the numeric libraries are held to: the bits of a sum differ between classes, not within one.

    AVX2 at most, although AVX-512 may be there, so that one class covers most machines.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return os.uname().machine
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return "avx2" if {"avx2", "fma"} <= set(flags) else os.uname().machine


@cache
def _library(name: str, stage: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        raise ToolMissing(f"stage {stage} needs {name}", f"install it: {command_for(name)}") from None
