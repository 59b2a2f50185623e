"""Bundles by the names that people use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.domain.errors import Corrupt, UserError
from workbench.domain.ids import ObjectId
from workbench.domain.refs import AgentVersion
from workbench.domain.version import Version

if TYPE_CHECKING:
    from workbench.store.git.repository import GitRepository


def bundle_names(repository: GitRepository, names: Sequence[str], out: Path, *, with_inputs: bool) -> list[str]:
    """Write the artifacts and versions that ``names`` mean; the refs it carries. Every object is hashed before.

    A version brings the release that it pins: without it, it could not answer.
    """
    from workbench.pipeline.integrity import whole
    from workbench.runner.lookup import read_state
    from workbench.store.git.bundle import bundle
    from workbench.versions.describe import find_artifact

    refs: list[str] = []
    for name in names:
        if "/" in name.removeprefix("refs/tags/"):
            refs.append(str(find_artifact(repository, name).tag))
            continue
        version = AgentVersion(_version(name.removeprefix("refs/tags/")))
        refs.append(str(version))
        if repository.refs.get(str(version)) is not None:
            pinned = read_state(repository, repository.resolve(str(version))).release
            if pinned is not None:
                refs.append(str(pinned.tag))

    def check(tags: Sequence[ObjectId]) -> None:
        for finding in whole(repository.objects, tags, repository.path):
            if finding.severity == "error":
                raise Corrupt(f"what would be bundled is damaged: {finding.what}", finding.fix)

    return bundle(repository, list(dict.fromkeys(refs)), out, with_inputs=with_inputs, check=check)


def _version(name: str) -> Version:
    try:
        return Version.parse(name)
    except UserError:
        raise UserError(
            f"{name!r} is no artifact and no version", "name some of what `workbench log` lists: KIND/NAME or vX.Y.Z"
        ) from None


@dataclass(frozen=True)
class Taken:
    """What a bundle brought: the tags that were new here, by full name, and where they lie."""

    refs: list[str]
    incoming: str = ""  # the id below which they lie until somebody trusts them; empty: they have their names
    note: str = ""


def unbundle_file(repository: GitRepository, file: Path, *, who: str, trust: bool = False) -> Taken:
    """Take a bundle in. Its tags are judged as those of a push are, payload and all. They get their names where
    ``trust`` says so, and in a repository without any version or artifact: there is nothing that they could displace.
    """
    from workbench.app import trusting, wiring
    from workbench.hub.policy import judge_carried
    from workbench.store.git.bundle import unbundle
    from workbench.store.git.quarantine import QuarantinedObjects

    def judge(folder: Path, tags: Mapping[str, ObjectId]) -> None:
        judge_carried(tags, QuarantinedObjects(repository.path, [folder]))

    is_trusted = trust or not repository.refs.all("refs/tags/")
    id = "" if is_trusted else str(wiring.run_clock(repository).ulid())
    brought = unbundle(file, repository, who=who, check=judge, incoming=id)
    entries = trusting.entries(repository) if brought else []
    return Taken(brought, id if brought else "", trusting.older(entries[0], entries) if entries else "")
