"""One version of an agent as an immutable snapshot: its code, active state, release and tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.domain import refs
from workbench.domain.errors import NotFound, UserError
from workbench.domain.ids import ObjectId
from workbench.ports.store import Repository
from workbench.runner import contract as contracts
from workbench.runner import importer
from workbench.runner.contract import Tool
from workbench.state import document
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


def label(repository: Repository, commit: ObjectId) -> str:
    """The highest version tag at a commit, else its abbreviated id."""
    versions = refs.agent_versions(repository.refs.all("refs/tags/"))
    found = [version for version, tag in versions if repository.objects.peel(tag) == commit]
    return str(found[-1]) if found else commit[:12]


def read_state(repository: Repository, commit: ObjectId) -> StateDocument:
    try:
        data = repository.objects.read_file(commit, document.ACTIVE_PATH)
    except NotFound:
        raise NotFound(
            f"commit {commit[:12]} has no {document.ACTIVE_PATH}", "commit one; `workbench init` makes an example"
        ) from None
    return document.read(data)


def load(repository: Repository, name: str = "active") -> AgentSnapshot:
    """The snapshot of a version: ``active``, ``vX.Y.Z``, a branch or a commit."""
    if name == "active" and repository.refs.get(str(refs.ACTIVE)) is None:
        raise NotFound("no version is active yet", "pin a release: workbench pin release/NAME")
    # The channel, also where a branch or a tag has that name.
    commit = repository.resolve(str(refs.ACTIVE) if name == "active" else name)
    state = read_state(repository, commit)
    modules = importer.load(repository.objects, commit)
    tools = contracts.find_tools(modules.values())
    if not tools:
        raise UserError(f"agents/ at {commit[:12]} defines no tool", "mark a function with @tool from workbench.sdk")
    return AgentSnapshot(label(repository, commit), commit, state, tools)
