"""What a stage's output depends on besides its code: versions of libraries and tools; for training the machine's class.

Not here: the variables that a stage process is started with (``process``).
"""

from __future__ import annotations

import os
import sys
import tempfile
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

from workbench.config.installed import command_for
from workbench.domain.errors import ToolMissing
from workbench.domain.stage import Params, StageSpec
from workbench.pipeline.process import step_environment
from workbench.system.programs import Program, look


class Tools:
    """Programs as a step would find them, each asked once."""

    def __init__(self) -> None:
        self._environment = step_environment(os.environ, threads=1, isa="", scratch=Path(tempfile.gettempdir()))
        self._known: dict[str, Program] = {}

    def look(self, name: str) -> Program:
        if name not in self._known:
            self._known[name] = look(name, self._environment)
        return self._known[name]

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
