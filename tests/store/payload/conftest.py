"""One suite over both repositories, payload folders, and the other readers that what we wrote is read back with."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from workbench.domain.manifest import Manifest
from workbench.domain.refs import Kind
from workbench.domain.version import Bump
from workbench.ports.store import Artifact
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub
from workbench.store.memory.repository import MemoryRepository

WHO = "Ann <ann@localhost>"


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


class Lab:
    """Folders, artifacts and the git program, for tests."""

    who = WHO

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str, files: Mapping[str, bytes]) -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        for file, data in files.items():
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (path / file).write_bytes(data)
        return path

    def manifest(self, name: str = "rust", kind: Kind = Kind.MODEL, **changes: Any) -> Manifest:
        return Manifest(kind=kind, name=name, **changes)

    def publish(
        self, repository: Any, payload: Path, manifest: Manifest | None = None, *, bump: Bump = Bump.MINOR, **more: Any
    ) -> Artifact:
        staged = repository.artifacts.stage(payload, manifest or self.manifest())
        artifact: Artifact = repository.artifacts.publish(staged, bump=bump, who=WHO, why="a test", **more)
        return artifact

    def git(self, git_dir: Path, *arguments: str, stdin: bytes = b"") -> bytes:
        command = ["git", f"--git-dir={git_dir}", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)
