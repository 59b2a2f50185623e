"""One version of an agent as an immutable snapshot: its code, active state, release and tools."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.domain import refs
from workbench.domain.errors import NotFound, UserError
from workbench.domain.ids import ObjectId
from workbench.domain.refs import ACTIVE, AgentVersion, Channel
from workbench.domain.version import Version
from workbench.ports.store import Repository
from workbench.runner import contract as contracts
from workbench.runner import importer, source
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


def named(repository: Repository, name: str) -> ObjectId:
    """The commit of a version or channel, by its tag or the channel's ref: never a branch of that name."""
    if name == ACTIVE.name and repository.refs.get(str(ACTIVE)) is None:
        raise NotFound("no version is active yet", "pin a release: workbench pin release/NAME")
    try:
        ref: AgentVersion | Channel = AgentVersion(Version.parse(name)) if name[:1] == "v" else Channel(name)
        id = repository.refs.get(str(ref))
    except UserError:
        id = None
    if id is None:
        raise NotFound(f"there is no version or channel {name!r}", _hint(repository, name))
    return repository.objects.peel(id)


def _hint(repository: Repository, name: str) -> str:
    known = [str(version) for version, _ in refs.agent_versions(repository.refs.all("refs/tags/"))]
    channels = f"{refs.OWN_NAMESPACE}channels/"
    known += [ref.removeprefix(channels) for ref in repository.refs.all(channels)]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    said = f"did you mean {' or '.join(near)}?" if near else "`workbench log` lists the versions"
    return f"{said} Of any other commit, a branch's too: --commit REV"


def load(repository: Repository, name: str = ACTIVE.name, *, commit: str = "") -> AgentSnapshot:
    """The snapshot of a version (``vX.Y.Z``) or channel, or of any ``commit``."""
    id = repository.resolve(commit) if commit else named(repository, name)
    state = read_state(repository, id)
    modules = importer.load(source.at(repository.objects, id))
    tools = contracts.find_tools(modules.values())
    if not tools:
        raise UserError(f"agents/ at {id[:12]} defines no tool", "mark a function with @tool from workbench.sdk")
    return AgentSnapshot(label(repository, id), id, state, tools)
