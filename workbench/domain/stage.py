"""What a stage is: a name, what it reads and makes, its parameters and what it depends on. Not here: running it.

A stage is a process, ``python -m workbench.stages.<name> step.json`` or a workspace's own command, which runs in the
sandbox. It gets read-only
input folders, parameters, a seed and an empty output folder, and leaves files. ``step.json``::

    {"format": 1, "stage": "tokenizer", "name": "rust",
     "inputs": {"dataset": "/…/dataset"},          read-only folders, by role (the kind, or an optional role)
     "output": "/…/output",                         empty folder; all that is left there becomes payload/
     "scratch": "/…/scratch",                       private, thrown away
     "checkpoint": "/…/checkpoint" | null,          folder of the last checkpoint when resuming
     "params": {…}, "seed": 0, "workers": 2}

It writes events as JSON lines to standard output (``{"event": "progress", …}``, see ``events``), free text to
standard error, and as its last act ``result.json`` beside ``output``:
``{"format": 1, "counts": {…}, "metrics": {…}, "breaks": ""}``.
Counts and metrics go into the manifest, so they must not depend on time or place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.domain.refs import Kind

STEP_FORMAT = 1

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Needs:
    """What a workspace's own stage may do beyond the sandbox. Zero: what every stage has (``DEFAULT``)."""

    read: tuple[str, ...] = ()  # folders and files of the machine
    write: tuple[str, ...] = ()  # folders of the machine
    network: bool = False
    memory_mb: int = 0
    disk_mb: int = 0
    time_s: int = 0

    def __bool__(self) -> bool:
        return self != Needs()

    @property
    def reach(self) -> dict[str, Any]:
        """What may change the result; more time or room does not."""
        found = {"read": list(self.read), "write": list(self.write), "network": self.network}
        return found if any(found.values()) else {}

    def describe(self) -> str:
        """``uses the network, reads /data``; empty for nothing."""
        parts = ["uses the network"] if self.network else []
        parts += [f"reads {path}" for path in self.read] + [f"writes {path}" for path in self.write]
        for value, unit in ((self.memory_mb, "MiB of memory"), (self.disk_mb, "MiB of disk"), (self.time_s, "s")):
            parts += [f"takes up to {value} {unit}"] if value else []
        return ", ".join(parts)


DEFAULT = Needs(memory_mb=4 << 10, disk_mb=32 << 10, time_s=3600)


@dataclass(frozen=True)
class StageSpec:
    """A stage as the planner sees it. Importing a spec is cheap: no heavy library."""

    name: str
    reads: tuple[Kind, ...]
    makes: Kind | None  # None: a check that leaves evidence only (serve)
    resolve: Callable[[int, Params], dict[str, Any]]  # (dial, given) -> all parameters; UserError on a wrong one
    libraries: tuple[str, ...] = ()  # distributions whose version is part of the action key
    tools: tuple[str, ...] = ()  # programs whose --version is part of the action key, where they are installed
    tools_for: Callable[[Params], tuple[str, ...]] | None = None  # more of them, that only some parameters use
    # (parameters, tool, what is wrong with it) -> what the stage does without it; ToolMissing where it cannot run
    without: Callable[[Params, str, str], str] | None = None
    hardware: bool = False  # instruction set and thread count are part of the key (training)
    llama: bool = False  # the CPU variant of llama.cpp is part of the key
    previous: bool = False  # reads the previous version of what it makes, as input role "previous" (evaluate)
    major_params: tuple[str, ...] = ()  # a change of these changes the output's format or ids: a major bump
    replays: bool = False  # fetches from outside; or, given what it made as input role "recorded", takes it from there
    checkpoints: bool = False  # may save checkpoints and resume
    command: tuple[str, ...] = ()  # a workspace's own command; empty: python -m workbench.stages.<name>
    code_paths: tuple[str, ...] = ()  # workspace paths that are the code of such a command
    needs: Needs = Needs()  # of such a command
    output_format: int = 1  # version of the payload's format; raising it is a major bump
    major_files: tuple[str, ...] = ()  # payload files that define ids: other bytes mean a major bump (tokenizer.model)
    carries: tuple[Kind, ...] = ()  # inputs whose ids stand in the output: a major step of theirs is one here
    adapters: tuple[str, ...] = ()  # rooms of adapters whose code shapes the output, e.g. "inference": part of the key
    # By stage, all parameters of the pipeline: UserError where this stage could not run on what the others make.
    fits: Callable[[Mapping[str, Params]], None] | None = None

    def all_tools(self, params: Params) -> tuple[str, ...]:
        return (*self.tools, *(self.tools_for(params) if self.tools_for else ()))


@dataclass(frozen=True)
class StageResult:
    counts: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    breaks: str = ""  # why consumers of the last version must change, where the stage knows: a major bump
