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
from workbench.ports.store import Repository
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
