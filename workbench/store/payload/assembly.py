"""Where the payload parts of a repository meet: one function for a Git directory, one for any other repository."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from workbench.ports.store import Ledger, Objects, Refs
from workbench.ports.work import Clock
from workbench.store.payload.artifacts import StoredArtifacts
from workbench.store.payload.blobs import Blobs, PackBlobs, PortBlobs
from workbench.store.payload.cache import DEFAULT_LIMIT_BYTES, PayloadCache, default_folder
from workbench.store.payload.journals import StoredJournals
from workbench.store.payload.run_cache import StoredRunCache
from workbench.store.payload.runs import StoredRuns


@dataclass(frozen=True)
class Payload:
    artifacts: StoredArtifacts
    cache: PayloadCache
    run_cache: StoredRunCache
    journals: StoredJournals
    runs: StoredRuns


def for_git(
    git_dir: Path,
    objects: Objects,
    refs: Refs,
    ledger: Ledger,
    clock: Clock,
    *,
    cache_folder: Path | None = None,
    cache_limit_bytes: int = DEFAULT_LIMIT_BYTES,
) -> Payload:
    """``cache_folder`` None: ``$WORKBENCH_CACHE_DIR`` or the XDG place."""
    return _assemble(
        PackBlobs(git_dir, objects),
        objects,
        refs,
        ledger,
        clock,
        journals=git_dir / "workbench" / "journal",
        cache_folder=cache_folder or default_folder(os.environ),
        cache_limit_bytes=cache_limit_bytes,
    )


def for_ports(
    objects: Objects,
    refs: Refs,
    ledger: Ledger,
    clock: Clock,
    *,
    folder: Path,
    cache_limit_bytes: int = DEFAULT_LIMIT_BYTES,
) -> Payload:
    """Over ports alone; open journals and the cache lie in ``folder``, which is made when it is needed."""
    return _assemble(
        PortBlobs(objects),
        objects,
        refs,
        ledger,
        clock,
        journals=folder / "journal",
        cache_folder=folder / "cache",
        cache_limit_bytes=cache_limit_bytes,
    )


def _assemble(
    blobs: Blobs,
    objects: Objects,
    refs: Refs,
    ledger: Ledger,
    clock: Clock,
    *,
    journals: Path,
    cache_folder: Path,
    cache_limit_bytes: int,
) -> Payload:
    artifacts = StoredArtifacts(objects, refs, ledger, blobs, now_ms=clock.now_ms)
    return Payload(
        artifacts=artifacts,
        cache=PayloadCache(artifacts.pour, cache_folder, limit_bytes=cache_limit_bytes),
        run_cache=StoredRunCache(objects, refs, ledger),
        journals=StoredJournals(objects, refs, journals, now_ms=clock.now_ms),
        runs=StoredRuns(objects, refs, blobs, now_ms=clock.now_ms),
    )
