"""From the name of a version or channel to its commit, and the active state of a commit. Imports nothing of agents/."""

from __future__ import annotations

import difflib
import shlex
from contextlib import suppress

from workbench.domain import refs
from workbench.domain.errors import NotFound, UserError, WorkbenchError
from workbench.domain.ids import ObjectId
from workbench.domain.refs import ACTIVE, AgentVersion, Channel
from workbench.domain.version import Version
from workbench.ports.store import Repository
from workbench.state import document
from workbench.state.document import StateDocument


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
    with suppress(WorkbenchError):
        repository.resolve(name)
        return f"it is a commit: workbench mcp runner --commit {shlex.quote(name)}"
    known = [str(version) for version, _ in refs.agent_versions(repository.refs.all("refs/tags/"))]
    channels = f"{refs.OWN_NAMESPACE}channels/"
    known += [ref.removeprefix(channels) for ref in repository.refs.all(channels)]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else "`workbench log` lists the versions"
