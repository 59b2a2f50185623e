"""Repositories to import into: the one over Git, and its peer in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub
from workbench.store.memory.repository import MemoryRepository


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE_DIR", str(tmp_path / "own-cache"))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[GitRepository]:
    with GitRepository(init_hub(tmp_path / "hub.git")) as repository:
        yield repository
        repository.cache.close()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MemoryRepository]:
    with MemoryRepository(tmp_path / "memory") as repository:
        yield repository
        repository.cache.close()


@pytest.fixture(params=["git", "memory"])
def repository(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("hub" if request.param == "git" else "memory")
