"""What there is to tell of an artifact, a version and their lineage, as plain values for people and programs alike."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workbench.domain import refs
from workbench.domain.errors import Corrupt, NotFound, Refused, UserError, WorkbenchError
from workbench.domain.ids import ObjectId
from workbench.domain.refs import ArtifactTag, Incoming
from workbench.ports.store import Artifact, Repository

LINEAGE_BOUND = 1000


def artifact_summary(artifact: Artifact) -> dict[str, Any]:
    """Everything but the list of files."""
    manifest = artifact.manifest
    return {
        "artifact": artifact.tag.short,
        "kind": artifact.tag.kind.value,
        "name": artifact.tag.name,
        "version": str(artifact.tag.version),
        "commit": artifact.commit,
        "tree": artifact.tree,
        "source": artifact.source,
        "run": artifact.run,
        "inputs": [{"artifact": short, "commit": commit} for short, commit in artifact.inputs],
        "stage": manifest.stage,
        "params": dict(manifest.params),
        "seed": manifest.seed,
        "code": manifest.code,
        "environment": dict(manifest.environment),
        "action_key": manifest.action_key,
        "counts": dict(manifest.counts),
        "metrics": dict(manifest.metrics),
        "files": len(manifest.files),
        "size": sum(file.size for file in manifest.files),
    }


def artifact_files(artifact: Artifact) -> list[dict[str, Any]]:
    return [
        {"path": file.path, "sha256": file.sha256, "size": file.size, "chunks": file.chunks}
        for file in artifact.manifest.files
    ]


@dataclass(frozen=True)
class Ancestor:
    """What an artifact was made from, as its commit says. ``artifact`` is None where this repository does not hold it
    (a bundle brings one release, a deleted version is gone), or holds another one under that name."""

    tag: ArtifactTag
    commit: ObjectId
    artifact: Artifact | None


def lineage(repository: Repository, artifact: Artifact) -> Iterator[Ancestor]:
    """Everything the artifact was made from, nearest first, each once; bounded."""
    waiting = [(ArtifactTag.parse(short), commit) for short, commit in artifact.inputs]
    seen = set(waiting)
    while waiting and len(seen) <= LINEAGE_BOUND:
        tag, commit = waiting.pop(0)
        found = _held(repository, tag, commit)
        yield Ancestor(tag, commit, found)
        above = [(ArtifactTag.parse(short), commit) for short, commit in (found.inputs if found else ())]
        waiting += [each for each in above if each not in seen]
        seen |= set(above)


def _held(repository: Repository, tag: ArtifactTag, commit: ObjectId) -> Artifact | None:
    try:
        found = repository.artifacts.get(tag)
    except WorkbenchError:  # also one that cannot be read
        return None
    return found if found.commit == commit else None


def find_any(repository: Repository, text: str) -> Artifact:
    """To look at: ``find_artifact``, or one that nobody trusts yet, as ``incoming/ID/KIND/NAME/vX.Y.Z``."""
    if text.startswith("incoming/"):
        return repository.artifacts.lying(Incoming.parse(text))
    return find_artifact(repository, text)


def find_artifact(repository: Repository, text: str) -> Artifact:
    """The artifact a person means: ``KIND/NAME/vX.Y.Z``, ``KIND/NAME`` (its newest version), or a full ref. Refused for
    one that nobody trusts yet."""
    if text.startswith("incoming/"):
        lies = Incoming.parse(text)
        raise Refused(f"nobody trusts {lies.short} yet, so nothing uses it", f"workbench trust {lies.id}")
    short = text.removeprefix("refs/tags/").rstrip("/")
    kind, _, name = short.partition("/")
    if name and kind not in {k.value for k in refs.Kind}:
        near = difflib.get_close_matches(kind, [k.value for k in refs.Kind], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}/{name}? " if near else ""
        raise UserError(
            f"not an artifact: {text!r}",
            f"{hint}write KIND/NAME or KIND/NAME/vX.Y.Z, where KIND is one of {', '.join(refs.Kind)}",
        )
    if name and "/" not in name:
        newest = repository.artifacts.latest(refs.Kind(kind), refs.check_name(name, "artifact name"))
        if newest is None:
            for ref in repository.refs.all(f"refs/tags/{short}/"):
                if isinstance(tag := refs.parse_any(ref), ArtifactTag):
                    repository.artifacts.look(tag)  # there are some, and none can be read: why not
            known = sorted({f"{tag.kind}/{tag.name}" for tag in repository.artifacts.list()})
            hint = (
                f"there are: {', '.join(known)}" if known else "there are no artifacts yet: start with `workbench run`"
            )
            raise NotFound(f"there is no {short}", hint)
        return repository.artifacts.get(newest)
    if short.count("/") != 2:
        raise UserError(f"not an artifact: {text!r}", "write KIND/NAME/vX.Y.Z, or KIND/NAME for the newest")
    return repository.artifacts.get(ArtifactTag.parse(short))


def ledger_entries(repository: Repository, limit: int) -> list[dict[str, Any]]:
    """The ledger, newest first, as far as it can be read."""
    return [
        {
            "counter": entry.counter,
            "action": entry.action.value,
            "who": entry.who,
            "why": entry.why,
            "time_ms": entry.time_ms,
            "moves": [{"ref": str(move.ref), "old": move.old, "new": move.new} for move in entry.moves],
            "evidence": dict(entry.evidence),
            "commit": entry.commit,
        }
        for entry in repository.ledger.readable(limit)
    ]


def contract(repository: Repository, commit: ObjectId) -> dict[str, Any]:
    """The recorded contract of a commit's ``agents/``, and the libraries that made it; or None and why there is none.
    Nothing is computed here."""
    found: dict[str, Any] = {"contract": None, "made_by": {}, "no_contract": ""}
    entry = repository.objects.entry(commit, "agents")
    if entry is None or entry.mode != 0o40000:
        return found | {"no_contract": "the commit has no agents/ folder"}
    try:
        record = repository.contracts.get(entry.id)
    except Corrupt as error:
        return found | {"no_contract": f"{error.what}; `workbench contract {commit} --again` computes it anew"}
    if record is None:
        return found | {"no_contract": f"it is not recorded yet; `workbench contract {commit}` does that"}
    return {"contract": record.contract, "made_by": dict(record.made_by), "no_contract": record.why}


def versions(repository: Repository) -> list[dict[str, Any]]:
    """The agent's versions, newest first, with what each pins."""
    active = repository.refs.get(str(refs.ACTIVE))
    answer = []
    for version, tag in reversed(refs.agent_versions(repository.refs.all("refs/tags/"))):
        try:
            info = repository.objects.commit(repository.objects.peel(tag))
        except WorkbenchError:
            continue  # ``passed_over`` tells of it
        answer.append(
            {
                "version": str(version),
                "commit": info.id,
                "tree": info.tree,
                "message": info.message.strip(),
                "author": info.author,
                "time_s": info.time_s,
                "active": info.id == active,
            }
        )
    return answer


def readable_artifacts(repository: Repository) -> list[Artifact]:
    return [repository.artifacts.get(tag) for tag in repository.artifacts.list()]
