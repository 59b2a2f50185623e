"""``undo`` as a person types it: the last pin by default, any entry by its number, and why it cannot be at times."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.store.git.repository import GitRepository

WHO = "Ada <a@b.c>"


@pytest.fixture
def hub(cli: Any, tmp_path: Path) -> Path:
    """A workspace whose ledger has: 1 init, 2 a push of main, topic and a tag."""
    assert cli(tmp_path, "init", "agent").returncode == 0
    with GitRepository(tmp_path / "agent.git") as repository:
        old = repository.refs.get("refs/heads/main") or ZERO_ID
        new = commit_after(repository, old)
        tag = repository.objects.add_tag("v1.0.0", new, message="x", who=WHO, time_ms=0)
        moves = [
            RefMove.named("refs/heads/main", old, new),
            RefMove.named("refs/heads/topic", new=new),
            RefMove.named("refs/tags/v1.0.0", new=tag),
        ]
        repository.ledger.change(Action.PUSH, moves, who=WHO, why="push main, topic, v1.0.0")
    return tmp_path / "agent.git"


def commit_after(repository: GitRepository, parent: ObjectId) -> ObjectId:
    tree = repository.objects.commit(parent).tree
    return repository.objects.add_commit(tree, parents=[parent], message="next", who=WHO, time_ms=0)


def refs(hub: Path) -> dict[str, str]:
    done = subprocess.run(["git", "--git-dir", str(hub), "for-each-ref"], capture_output=True, text=True)
    return {line.split("\t")[1]: line.split(" ")[0] for line in done.stdout.splitlines()}


def test_a_push_is_undone_by_its_number_and_redone_by_that_of_the_undo(cli: Any, hub: Path) -> None:
    before = refs(hub)
    assert cli(hub, "undo").returncode == 4, "a push is not what undo means by default"
    done = cli(hub, "undo", "2", "--why", "not meant")
    assert done.returncode == 0, done.stderr
    assert "entry 3: not meant" in done.stdout
    assert "refs/heads/topic: " in done.stdout
    assert done.stdout.splitlines()[-2].endswith("-> absent")
    after = refs(hub)
    assert "refs/heads/topic" not in after
    assert after["refs/heads/main"] != before["refs/heads/main"]
    assert after["refs/tags/v1.0.0"] == before["refs/tags/v1.0.0"]
    again = cli(hub, "undo", "2")
    assert (again.returncode, "workbench undo 3" in again.stderr) == (3, True)
    redone = json.loads(cli(hub, "undo", "3", "--json").stdout)
    assert {move["ref"] for move in redone["moves"]} == {"refs/heads/main", "refs/heads/topic"}
    assert {name: id for name, id in refs(hub).items() if "/workbench/" not in name} == {
        name: id for name, id in before.items() if "/workbench/" not in name
    }


def test_in_the_clone_it_says_how_the_clone_catches_up_and_that_works(cli: Any, hub: Path) -> None:
    clone = hub.with_name("agent")
    subprocess.run(["git", "pull", "-q", "hub", "main"], cwd=clone, check=True)
    said = cli(clone, "undo", "2").stdout
    line = next(line for line in said.splitlines() if line.startswith("next:"))
    command = line.removeprefix("next:").split("     ")[0].strip()
    subprocess.run(["sh", "-c", command], cwd=clone, check=True, capture_output=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True).stdout.strip()
    assert head == refs(hub)["refs/heads/main"]


def test_where_main_went_back_it_says_what_a_clone_brings_back(cli: Any, hub: Path) -> None:
    old = refs(hub)["refs/heads/main"][:12]
    assert f"a clone that still has {old} brings it back" in cli(hub, "undo", "2").stdout
    assert "brings it back" not in cli(hub, "undo", "3").stdout, "the redo goes forward"


def test_what_was_pushed_on_top_is_not_undone_with_it(cli: Any, hub: Path) -> None:
    with GitRepository(hub) as repository:
        old = repository.refs.get("refs/heads/main") or ZERO_ID
        repository.refs.swap([RefMove.named("refs/heads/main", old, commit_after(repository, old))])
    before = refs(hub)
    done = cli(hub, "undo", "2")
    assert done.returncode == 5
    assert "entry 2 (push) cannot be undone any more: refs/heads/main is at" in done.stderr
    assert refs(hub) == before


def test_the_beginning_is_not_undone(cli: Any, hub: Path) -> None:
    before = refs(hub)
    done = cli(hub, "undo", "1")
    assert (done.returncode, "git revert" in done.stderr) == (3, True)
    assert refs(hub) == before
