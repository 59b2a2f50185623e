"""States of a hub that no push can leave, for ``doctor``: found, and mended without losing anything.

A branch whose name means something else to git stands in the way of everybody who pushes. After a version with the last
number none can follow. A file of another user stops the hub's processes. All of them come from older workbenches, and
from programs that run no hooks. Not here: names outside the grammar, which readers pass over.
"""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from workbench.domain import refs
from workbench.domain.errors import UserError
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.domain.push import family, free_name
from workbench.domain.refs import AgentVersion, ArtifactTag, Branch, Ref
from workbench.domain.version import FIRST, Bump, Version
from workbench.ports.store import Finding, Repository
from workbench.ports.work import Clock

MEND = "workbench doctor --mend"
MAX_FILES = 20_000  # that are looked at for their owner


def find(repository: Repository) -> Iterator[Finding]:
    for ref, _, why in _misnamed(repository):
        yield Finding("error", f"{ref} {why}", MEND)
    yield from _foreign_files(repository.path)


def mend(repository: Repository, *, clock: Clock, who: str) -> Iterator[str]:
    """Give each misnamed ref another name, one ledger entry each; a sentence for each."""
    for old, id, why in list(_misnamed(repository)):
        new, value = _renamed(repository, old, id, clock, who)
        moves = [RefMove(old, id, ZERO_ID), RefMove(new, ZERO_ID, value)]
        repository.ledger.change(Action.RENAME, moves, who=who, why=f"{old} {why}: it is called {new} now")
        yield f"renamed {old} to {new}"


def _misnamed(repository: Repository) -> Iterator[tuple[Ref, ObjectId, str]]:
    all_refs = repository.refs.all()
    channels = [name.removeprefix(refs.CHANNELS) for name in all_refs if name.startswith(refs.CHANNELS)]
    for name, id in all_refs.items():
        try:
            ref = refs.parse(name)
        except UserError:
            continue
        if isinstance(ref, Branch) and (other := refs.taken_name(ref.name, channels)):
            yield ref, id, f"is read as {other}, so that pushes of that are ambiguous"
        elif isinstance(ref, AgentVersion | ArtifactTag) and not ref.version.leaves_room:
            yield ref, id, "has a number so high that few versions can follow"


def _renamed(repository: Repository, ref: Ref, id: ObjectId, clock: Clock, who: str) -> tuple[Ref, ObjectId]:
    """A name that means nothing else, and the value under it: a tag says its own name, so it is made anew."""
    if isinstance(ref, Branch):
        free = Branch(free_name(ref.name))
        while repository.refs.get(str(free)) is not None:
            free = Branch(f"{free.name}-1")
        return free, id
    assert isinstance(ref, AgentVersion | ArtifactTag)
    there = [version for version in _versions(repository, family(ref)) if version.leaves_room]
    version = max(there).bump(Bump.MAJOR) if there else FIRST
    new = ArtifactTag(ref.kind, ref.name, version) if isinstance(ref, ArtifactTag) else AgentVersion(version)
    commit = repository.objects.peel(id)
    message = f"{new.short}, which was called {ref.short}"
    return new, repository.objects.add_tag(new.short, commit, message=message, who=who, time_ms=clock.now_ms())


def _versions(repository: Repository, prefix: str) -> Iterator[Version]:
    for name in repository.refs.all(prefix):
        try:
            ref = refs.parse(name)
        except UserError:
            continue
        if isinstance(ref, AgentVersion | ArtifactTag) and family(ref) == prefix:
            yield ref.version


def _foreign_files(git_dir: Path) -> Iterator[Finding]:
    """Files that a push of another user left behind: the owner can neither change nor remove them."""
    owner = git_dir.stat().st_uid
    foreign: list[str] = []
    for number, path in enumerate(_files(git_dir)):
        if number == MAX_FILES:
            break
        if os.lstat(path).st_uid != owner:
            foreign.append(os.path.relpath(path, git_dir))
    if foreign:
        what = f"{len(foreign)} files of the hub belong to another user than the hub, for example {foreign[0]}"
        fix = f"sudo chown -R {shlex.quote(_name(owner))} {shlex.quote(str(git_dir))}"
        yield Finding("error", what, fix)


def _files(git_dir: Path) -> Iterator[str]:
    """Those that decide over a push first: the hub's own, then refs, then objects."""
    tops: Sequence[Path] = [git_dir / name for name in ("workbench", "refs", "hooks", "logs", "objects")]
    yield from (entry.path for entry in os.scandir(git_dir))
    for top in tops:
        for folder, folders, names in os.walk(top):
            yield from (os.path.join(folder, name) for name in (*folders, *names))


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
