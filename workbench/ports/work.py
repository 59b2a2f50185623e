"""What a stage is given besides files, and how work is spread over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from workbench.domain.ids import Ulid
from workbench.ports.fetch import Fetcher
from workbench.ports.inference import ModelLoader
from workbench.ports.sandbox import Sandbox

T = TypeVar("T")
R = TypeVar("R")


class Clock(Protocol):
    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        ...

    def ulid(self) -> Ulid: ...


class Mapper(Protocol):
    """Pure functions over many items. The result never depends on how many workers there are."""

    def map(self, function: Callable[[T], R], items: Iterable[T], *, chunk: int = 1) -> Iterator[R]:
        """Results in the order of the items. ``function`` is a module-level function or a partial of one; an
        exception of it is raised here. Workers are spawned, not forked."""
        ...


class StageContext(Protocol):
    """One step, as its stage sees it."""

    @property
    def name(self) -> str:
        """The artifact's name."""
        ...

    @property
    def inputs(self) -> Mapping[str, Path]:
        """Read-only payload folders by role; beside each payload lies the artifact's ``<role>.manifest.json``."""
        ...

    @property
    def output(self) -> Path:
        """An empty folder; what is left in it becomes the payload."""
        ...

    @property
    def scratch(self) -> Path: ...
    @property
    def checkpoint(self) -> Path | None:
        """The last checkpoint, when the step is resumed."""
        ...

    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def seed(self) -> int: ...
    @property
    def workers(self) -> int:
        """How many processes or threads to use; the output must not depend on it (training records it)."""
        ...

    @property
    def mapper(self) -> Mapper: ...
    @property
    def sandbox(self) -> Sandbox: ...
    @property
    def fetcher(self) -> Fetcher: ...
    @property
    def models(self) -> ModelLoader: ...

    def progress(self, done: float, total: float | None = None, unit: str = "", **rates: float) -> None:
        """Tell the people who watch; at most ten times a second goes out."""
        ...

    def say(self, text: str) -> None:
        """A line for the log."""
        ...

    def save_checkpoint(self, folder: Path) -> None:
        """Hand over a finished folder; returns when the runner has committed it to the run's ref."""
        ...
