"""The wiring: each port meets its adapter here, on first use, and nowhere else. Nothing heavy is imported before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.domain.stage import StageSpec
    from workbench.ports.fetch import Fetcher
    from workbench.ports.inference import ModelLoader
    from workbench.ports.sandbox import Sandbox
    from workbench.ports.store import Repository
    from workbench.ports.work import Clock, Mapper
    from workbench.store.git.repository import GitRepository

STAGES = ("crawl", "filter", "dataset", "tokenizer", "shard", "train", "evaluate", "package", "serve")


def open_repository(git_dir: Path) -> GitRepository:
    """The repository whose Git directory this is; what was cut off before is rolled forward first."""
    from workbench.store.git.repository import GitRepository

    return GitRepository(git_dir, clock=clock())


def clock() -> Clock:
    from workbench.clock.system import SystemClock

    return SystemClock()


def run_clock(repository: Repository) -> Clock:
    """The clock for who makes runs in a repository: their ids rise, whatever the machine's time does."""
    from workbench.clock.rising import RisingClock
    from workbench.hub.queue import waiting

    def newest() -> str:
        return max([*repository.runs.list()[:1], *(push.evidence["run"] for push in waiting(repository))], default="")

    return RisingClock(clock(), newest)


def mapper(workers: int) -> Mapper:
    from workbench.mapping.processes import ProcessMapper

    return ProcessMapper(workers)


def sandbox() -> Sandbox:
    from workbench.sandbox.bubblewrap import Bubblewrap

    return Bubblewrap()


def fetcher() -> Fetcher:
    from workbench.fetch.fetcher import SourceFetcher

    return SourceFetcher()


def models() -> ModelLoader:
    from workbench.inference.process import ProcessLoader

    return ProcessLoader()


def stage_specs() -> tuple[StageSpec, ...]:
    """The nine stages, in order."""
    from importlib import import_module

    return tuple(import_module(f"workbench.stages.{name}.spec").SPEC for name in STAGES)
