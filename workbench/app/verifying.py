"""``workbench verify``: stored bytes against manifests, and building everything again in an empty store."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.app import wiring
from workbench.domain.errors import UserError

if TYPE_CHECKING:
    from workbench.pipeline.rebuild import Row
    from workbench.pipeline.watch import Watcher
    from workbench.ports.store import Finding, Repository


def verify_artifacts(repository: Repository, name: str = "") -> Sequence[Finding]:
    """Findings for one artifact, or for all."""
    from workbench.pipeline.verify import verify
    from workbench.versions.describe import find_artifact

    tags = repository.artifacts.list()
    chosen = [find_artifact(repository, name)] if name else [repository.artifacts.get(tag) for tag in tags]
    return [finding for artifact in chosen for finding in verify(repository, artifact)]


def rebuild_artifact(repository: Repository, name: str, *, workers: int, who: str, watcher: Watcher) -> Sequence[Row]:
    """Build an artifact and its inputs again, in an empty store, with another number of workers than here."""
    from workbench.pipeline.rebuild import Rebuild
    from workbench.store.git.settings import init_hub
    from workbench.versions.describe import find_artifact

    if not name:
        raise UserError("--rebuild needs an artifact", "for example: workbench verify --rebuild release/rust")
    artifact = find_artifact(repository, name)
    workers = workers or (os.cpu_count() or 1) + 1
    with tempfile.TemporaryDirectory(prefix="workbench-rebuild-", dir=repository.path) as folder:
        store = Path(folder) / "store.git"
        init_hub(store)
        with wiring.open_repository(store) as fresh:
            rebuild = Rebuild(
                repository=repository,
                fresh=fresh,
                specs=wiring.stage_specs(),
                folder=Path(folder) / "steps",
                clock=wiring.clock(),
                workers=workers,
                who=who,
                watcher=watcher,
            )
            return rebuild.of(artifact)
