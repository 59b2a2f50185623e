"""One version of an agent as an immutable snapshot: its code, active state, release and tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.domain.errors import UserError
from workbench.domain.ids import ObjectId
from workbench.domain.refs import ACTIVE
from workbench.ports.store import Repository
from workbench.runner import contract as contracts
from workbench.runner import importer, source
from workbench.runner.contract import Tool
from workbench.runner.lookup import label, named, read_state
from workbench.state.document import StateDocument


@dataclass(frozen=True)
class AgentSnapshot:
    """Everything that decides an answer. ``version`` is the tag, or the commit's first 12 digits where none stands."""

    version: str
    commit: ObjectId
    state: StateDocument
    tools: Mapping[str, Tool]

    @property
    def release(self) -> str:
        return self.state.release.artifact if self.state.release else ""

    @property
    def contract(self) -> dict[str, Any]:
        return contracts.contract(self.tools)


def load(repository: Repository, name: str = ACTIVE.name, *, commit: str = "") -> AgentSnapshot:
    """The snapshot of a version (``vX.Y.Z``) or channel, or of any ``commit``."""
    id = repository.resolve(commit) if commit else named(repository, name)
    state = read_state(repository, id)
    modules = importer.load(source.at(repository.objects, id))
    tools = contracts.find_tools(modules.values())
    if not tools:
        raise UserError(f"agents/ at {id[:12]} defines no tool", "mark a function with @tool from workbench.sdk")
    return AgentSnapshot(label(repository, id), id, state, tools)
