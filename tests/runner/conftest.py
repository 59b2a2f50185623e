"""A real hub with agent code, made by objects alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workbench.app.template import template_files
from workbench.domain.ids import EMPTY_TREE, ZERO_ID, ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.domain.manifest import Manifest
from workbench.domain.refs import MAIN, Kind
from workbench.domain.version import Bump
from workbench.ports.store import Artifact
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub

WHO = "A <a@example.com>"
Commit = Callable[[dict[str, bytes | None]], ObjectId]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitRepository]:
    """A hub whose main holds the template."""
    monkeypatch.setenv("WORKBENCH_CACHE_DIR", str(tmp_path / "cache"))
    init_hub(tmp_path / "hub.git")
    with GitRepository(tmp_path / "hub.git") as made:
        tree = made.objects.add_tree(EMPTY_TREE, dict(template_files()))
        commit = made.objects.add_commit(tree, parents=(), message="start\n", who=WHO, time_ms=1000)
        made.ledger.change(Action.INIT, [RefMove(MAIN, ZERO_ID, commit)], who=WHO, why="start")
        yield made


@pytest.fixture
def commit(repository: GitRepository) -> Commit:
    """Commits changed files on main."""

    def make(changes: dict[str, bytes | None]) -> ObjectId:
        main = repository.refs.get(str(MAIN))
        assert main is not None
        tree = repository.objects.add_tree(repository.objects.commit(main).tree, changes)
        made = repository.objects.add_commit(tree, parents=(main,), message="change\n", who=WHO, time_ms=2000)
        repository.refs.swap([RefMove(MAIN, main, made)])
        return made

    return make


@pytest.fixture
def release(repository: GitRepository, tmp_path: Path) -> Callable[[str], Artifact]:
    """Publishes releases that differ by their content. What is pinned need not be loadable to be pinned."""

    def make(content: str) -> Artifact:
        payload = tmp_path / f"payload-{content}"
        payload.mkdir()
        (payload / "rust-Q8_0.gguf").write_text(content)
        staged = repository.artifacts.stage(payload, Manifest(Kind.RELEASE, "rust"))
        return repository.artifacts.publish(staged, bump=Bump.MINOR, who=WHO, why="test")

    return make
