"""A hub with one of each: a version, a release and what it was made from, for all that ask the Versions API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.app.agents import pin_release
from workbench.app.template import template_files
from workbench.domain.ids import EMPTY_TREE, ZERO_ID
from workbench.domain.ledger import Action, RefMove
from workbench.domain.manifest import InputEntry, Manifest
from workbench.domain.refs import MAIN, Kind
from workbench.domain.version import Bump
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub

WHO = "A <a@example.com>"
PAGE = b"<html><script>alert(1)</script></html>"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitRepository]:
    folder = tmp_path_factory.mktemp("rest")
    init_hub(folder / "hub.git")
    with GitRepository(folder / "hub.git") as made:
        tree = made.objects.add_tree(EMPTY_TREE, dict(template_files()))
        start = made.objects.add_commit(tree, parents=(), message="start\n", who=WHO, time_ms=1000)
        made.ledger.change(Action.INIT, [RefMove(MAIN, ZERO_ID, start)], who=WHO, why="start")
        model = _publish(made, folder / "model", Manifest(Kind.MODEL, "rust", params={"depth": 2}))
        inputs = (InputEntry(Kind.MODEL, "rust", model.tree),)
        release = _publish(made, folder / "release", Manifest(Kind.RELEASE, "rust", inputs=inputs), [model])
        pin_release(made, release, who=WHO)
        pages = {"report.html": PAGE, "large.bin": bytes(range(256)) * 40}
        _publish(made, folder / "dataset", Manifest(Kind.DATASET, "rust"), files=pages)
        yield made


def _publish(repository, folder: Path, manifest: Manifest, inputs=(), files=()):  # type: ignore[no-untyped-def]
    folder.mkdir()
    for name, data in {"file.txt": folder.name.encode(), **dict(files)}.items():
        (folder / name).write_bytes(data)
    staged = repository.artifacts.stage(folder, manifest)
    lineage = [(a.tag, a.commit) for a in inputs]
    return repository.artifacts.publish(staged, bump=Bump.MINOR, inputs=lineage, who=WHO, why="test")
