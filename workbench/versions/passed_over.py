"""Refs that break the rules, as readers pass over them: which, why, and the command that removes each.

They come from a fetch into the repository, a mirror, or programs that run no hooks. Lists, plans, pages and the log go
on without them and say so; ``doctor`` names all of them. Not here: what stands in a push's way (``app.irregular``).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workbench.domain import refs
from workbench.domain.errors import UserError, WorkbenchError
from workbench.domain.ids import ObjectId
from workbench.domain.printable import one_line
from workbench.domain.refs import AgentVersion, ArtifactTag, Incoming, RunRef
from workbench.domain.run import RunRecord
from workbench.pipeline.records import RECORD
from workbench.ports.store import Repository

TAGS = "refs/tags/"
NAMED = 3  # of them by name, where one line tells of all


@dataclass(frozen=True)
class PassedOver:
    ref: str
    why: str
    fix: str  # a command

    def to_json(self) -> dict[str, str]:
        return {"ref": self.ref, "why": self.why, "fix": self.fix}


def tags(repository: Repository) -> list[PassedOver]:
    """Tags that are no version and no artifact. In a clone, tags of other names are its owner's."""
    return list(_of(repository, TAGS))


def runs(repository: Repository) -> list[PassedOver]:
    return list(_of(repository, f"{refs.OWN_NAMESPACE}runs/"))


def ledger(repository: Repository) -> list[PassedOver]:
    return list(_of(repository, str(refs.LEDGER)))


def everything(repository: Repository) -> list[PassedOver]:
    return [*_of(repository, TAGS), *_of(repository, refs.OWN_NAMESPACE)]


def sentence(found: Sequence[PassedOver]) -> str:
    """One line of them all; empty where there is none."""
    if not found:
        return ""
    names = ", ".join(one_line(each.ref) for each in found[:NAMED]) + (", …" if len(found) > NAMED else "")
    refs_are = "1 ref breaks the rules and is" if len(found) == 1 else f"{len(found)} refs break the rules and are"
    return f"{refs_are} passed over: {names}; `workbench doctor --quick` says why, and how to mend it"


def _of(repository: Repository, prefix: str) -> Iterator[PassedOver]:
    for name, id in repository.refs.all(prefix).items():
        try:
            _look(repository, name, id)
        except WorkbenchError as error:
            yield PassedOver(name, error.what, _fix(repository, name, id))


def _look(repository: Repository, name: str, id: ObjectId) -> None:
    """WorkbenchError where a ref is not what its name says."""
    objects = repository.objects
    try:
        ref = refs.parse(name)
    except UserError:
        if repository.path.name != ".git" or not name.startswith(TAGS):
            raise
        return  # in a clone it is the person's own
    if isinstance(ref, ArtifactTag):
        repository.artifacts.look(ref)
    elif isinstance(ref, Incoming) and isinstance(ref.tag, ArtifactTag):
        repository.artifacts.lying(ref)
    elif isinstance(ref, Incoming | AgentVersion):
        objects.commit(objects.peel(id))
    elif isinstance(ref, RunRef):
        data = repository.runs.read(ref.run, RECORD)
        if data is not None:
            RunRecord.from_bytes(data)
    elif ref == refs.LEDGER:
        repository.ledger.history(1)
    else:
        objects.commit(id)


def _fix(repository: Repository, name: str, id: ObjectId) -> str:
    git = f"git --git-dir {shlex.quote(str(repository.path))} update-ref"
    if name == str(refs.LEDGER) and (good := repository.ledger.last_readable()):
        return f"{git} {name} {good} {id}"
    return f"{git} -d {shlex.quote(name)} {id}"
