"""The payload's adapters over one repository's objects, refs and ledger, each imported and made on first use."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.ports.store import Journals, Ledger, Objects, Refs, RunStore
from workbench.ports.work import Clock

if TYPE_CHECKING:
    from workbench.store.payload.artifacts import StoredArtifacts
    from workbench.store.payload.blobs import Blobs
    from workbench.store.payload.cache import PayloadCache
    from workbench.store.payload.contracts import StoredContracts
    from workbench.store.payload.run_cache import StoredRunCache


class Parts:
    """``folder`` takes the journals' tails; ``git_dir`` None: over the ports alone, the cache below ``folder``."""

    def __init__(
        self, objects: Objects, refs: Refs, ledger: Ledger, *, clock: Clock, folder: Path, git_dir: Path | None
    ) -> None:
        self._objects = objects
        self._refs = refs
        self._ledger = ledger
        self._clock = clock
        self._folder = folder
        self._git_dir = git_dir

    @cached_property
    def blobs(self) -> Blobs:
        from workbench.store.payload.blobs import PackBlobs, PortBlobs

        return PackBlobs(self._git_dir, self._objects) if self._git_dir else PortBlobs(self._objects)

    @cached_property
    def artifacts(self) -> StoredArtifacts:
        from workbench.store.payload.artifacts import StoredArtifacts

        return StoredArtifacts(self._objects, self._refs, self._ledger, self.blobs, now_ms=self._clock.now_ms)

    @cached_property
    def cache(self) -> PayloadCache:
        from workbench.store.payload.cache import PayloadCache, default_folder

        folder = default_folder(os.environ) if self._git_dir else None
        return PayloadCache(self.artifacts.pour, folder or self._folder / "cache")

    @cached_property
    def run_cache(self) -> StoredRunCache:
        from workbench.store.payload.run_cache import StoredRunCache

        return StoredRunCache(self._objects, self._refs, self._ledger)

    @cached_property
    def contracts(self) -> StoredContracts:
        from workbench.store.payload.contracts import StoredContracts

        return StoredContracts(self._objects, self._refs, now_ms=self._clock.now_ms)

    @cached_property
    def journals(self) -> Journals:
        from workbench.store.payload.journals import StoredJournals

        return StoredJournals(self._objects, self._refs, self._folder / "journals", now_ms=self._clock.now_ms)

    @cached_property
    def runs(self) -> RunStore:
        from workbench.store.payload.runs import StoredRuns

        return StoredRuns(self._objects, self._refs, self.blobs, now_ms=self._clock.now_ms)
