"""``workbench verify``: stored bytes against manifests, and building everything again in an empty store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from workbench.app import wiring
from workbench.domain.errors import UserError, WorkbenchError
from workbench.domain.refs import Kind
from workbench.ports.store import Finding, Repository
from workbench.system.temporary import temporary_folder

if TYPE_CHECKING:
    from workbench.pipeline.rebuild import Row
    from workbench.pipeline.watch import Watcher


def verify_ref(repository: Repository, name: str) -> Sequence[Finding]:
    """An artifact: its objects, manifest and lineage. Any other name (a version, a branch, a ref): every object that it
    reaches."""
    from workbench.pipeline.integrity import whole
    from workbench.pipeline.verify import verify
    from workbench.versions.describe import find_any

    is_lying = name.startswith("incoming/") and name.count("/") > 2
    if is_lying or name.removeprefix("refs/tags/").partition("/")[0] in {kind.value for kind in Kind}:
        return verify(repository, find_any(repository, name))
    commit = repository.resolve(name)
    named = [id for ref, id in repository.refs.all().items() if ref == name or ref.endswith(f"/{name}")]
    tags = [id for id in named if id != commit and repository.objects.peel(id) == commit]  # resolve looks through them
    return list(whole(repository.objects, [*tags, commit], repository.path))


def verify_all(repository: Repository) -> Sequence[Finding]:
    """Every artifact, every object that the other refs reach, and every further copy of an object."""
    from workbench.pipeline.integrity import whole
    from workbench.pipeline.verify import verify
    from workbench.store.git.copies import damaged_copies
    from workbench.versions import passed_over

    found: list[Finding] = []
    artifacts = repository.artifacts.list()
    for tag in artifacts:
        try:
            findings = verify(repository, repository.artifacts.get(tag))
        except WorkbenchError as error:
            findings = [Finding("error", error.what, error.hint)]
        found.extend(replace(finding, what=f"{tag.short}: {finding.what}") for finding in findings)
    found.extend(Finding("error", f"{each.ref}: {each.why}", each.fix) for each in passed_over.tags(repository))
    own = {str(tag) for tag in artifacts}
    rest = [id for ref, id in repository.refs.all().items() if ref not in own]
    findings = list(whole(repository.objects, rest, repository.path))
    others = [replace(finding, what=f"all other refs: {finding.what}") for finding in findings]
    return [*found, *others, *damaged_copies(repository.path)]


def rebuild_artifact(repository: Repository, name: str, *, workers: int, who: str, watcher: Watcher) -> Sequence[Row]:
    """Build an artifact and its inputs again, in an empty store, with another number of workers than here."""
    from workbench.pipeline.rebuild import Rebuild
    from workbench.store.git.settings import init_hub
    from workbench.versions.describe import find_artifact

    if not name:
        raise UserError("--rebuild needs an artifact", "for example: workbench verify --rebuild release/rust")
    artifact = find_artifact(repository, name)
    workers = workers or (os.cpu_count() or 1) + 1
    with temporary_folder("rebuild", within=repository.path) as folder:
        store = folder / "store.git"
        init_hub(store)
        with wiring.open_repository(store) as fresh:
            rebuild = Rebuild(
                repository=repository,
                fresh=fresh,
                specs=wiring.stage_specs(),
                folder=folder / "steps",
                clock=wiring.clock(),
                workers=workers,
                who=who,
                watcher=watcher,
                sandbox=wiring.sandbox,
            )
            return rebuild.of(artifact)
