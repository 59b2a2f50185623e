"""Repositories for the core suite: each port's tests run over Git and over memory."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workbench.domain.ids import ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub
from workbench.store.memory.repository import CountingClock, MemoryRepository

AnyRepository = GitRepository | MemoryRepository


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return init_hub(tmp_path / "hub.git")


@pytest.fixture(params=["git", "memory"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyRepository]:
    made: AnyRepository
    if request.param == "git":
        made = GitRepository(init_hub(tmp_path / "hub.git"), clock=CountingClock())
    else:
        made = MemoryRepository(tmp_path, clock=CountingClock())
    with made:
        yield made


@pytest.fixture
def git_repository(hub: Path) -> Iterator[GitRepository]:
    with GitRepository(hub, clock=CountingClock()) as made:
        yield made


@pytest.fixture
def commits() -> Callable[[AnyRepository, int], list[ObjectId]]:
    """The first commits of a series: the same ids in every repository."""

    def make(repository: AnyRepository, number: int) -> list[ObjectId]:
        objects = repository.objects
        return [
            objects.add_commit(
                objects.add_tree(None, {"file": f"{i}\n".encode()}),
                parents=[],
                message=f"number {i}",
                who="Ada <ada@example.org>",
                time_ms=1_700_000_000_000 + i,
            )
            for i in range(number)
        ]

    return make


@pytest.fixture
def git() -> Callable[..., str]:
    """The git program itself, as a person would run it."""

    def run(folder: Path, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def fill() -> Callable[[GitRepository, list[ObjectId]], None]:
    """Gives a repository one of each: a branch, a channel, a tag, a ledger entry and a run-cache key."""

    def put(repository: GitRepository, commits: list[ObjectId]) -> None:
        tag = repository.objects.add_tag("v1.0.0", commits[0], message="first", who="Ada <a@b>", time_ms=1000)
        names = ("refs/heads/main", "refs/workbench/channels/active")
        moves = [*(RefMove.named(name, new=commits[0]) for name in names), RefMove.named("refs/tags/v1.0.0", new=tag)]
        repository.ledger.change(Action.PIN, moves, who="Ada", why="first", files={"ab/abcdef": b"{}"})

    return put
