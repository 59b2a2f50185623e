"""What the hub's processes are given; wired in ``app.hub_host``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.domain.ids import ObjectId
from workbench.domain.stage import StageSpec
from workbench.hub.layout import HubLayout
from workbench.hub.objects import OpenObjects
from workbench.ports.sandbox import Sandbox
from workbench.ports.store import (
    Artifacts,
    Cache,
    Contracts,
    Finding,
    Journals,
    Ledger,
    Objects,
    Refs,
    Repository,
    RunCache,
    RunStore,
)
from workbench.ports.work import Clock


@dataclass(frozen=True)
class Hub:
    repository: Repository
    open_objects: OpenObjects
    specs: Sequence[StageSpec]
    clock: Clock
    sandbox: Callable[[], Sandbox]
    start_worker: Callable[[], None]
    record_contract: Callable[[ObjectId], object] = lambda commit: None  # in the sandbox
    tier_folders: Callable[[], dict[str, Path]] = dict  # folders and files that a tier's commands see as well
    who: str = "workbench worker <worker@localhost>"

    @property
    def layout(self) -> HubLayout:
        return HubLayout(self.repository.path)


@dataclass(frozen=True)
class PushedRepository:
    """The hub's refs, artifacts and runs, with the objects of a push that is still in quarantine."""

    hub: Repository
    objects: Objects

    @property
    def path(self) -> Path:
        return self.hub.path

    @property
    def refs(self) -> Refs:
        return self.hub.refs

    @property
    def ledger(self) -> Ledger:
        return self.hub.ledger

    @property
    def artifacts(self) -> Artifacts:
        return self.hub.artifacts

    @property
    def cache(self) -> Cache:
        return self.hub.cache

    @property
    def run_cache(self) -> RunCache:
        return self.hub.run_cache

    @property
    def contracts(self) -> Contracts:
        return self.hub.contracts

    @property
    def journals(self) -> Journals:
        return self.hub.journals

    @property
    def runs(self) -> RunStore:
        return self.hub.runs

    def resolve(self, name: str) -> ObjectId:
        return self.hub.resolve(name)

    def check(self) -> Sequence[Finding]:
        return self.hub.check()

    def maintain(self, *, if_due: bool = False) -> Sequence[str]:
        return self.hub.maintain(if_due=if_due)
