"""What comes out of a bundle can be used at once: the command says how."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from workbench.domain.ids import EMPTY_TREE
from workbench.domain.ledger import Action, RefMove
from workbench.domain.manifest import Manifest
from workbench.domain.refs import Branch, Kind
from workbench.domain.version import Bump
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub

WHO = "Ann <ann@localhost>"


def bundled(folder: Path, cli: Any) -> Path:
    """A bundle of a release and of the dataset beside it."""
    payload = folder / "payload"
    payload.mkdir()
    (payload / "a.gguf").write_bytes(b"not opened here")
    with GitRepository(init_hub(folder / "hub.git")) as repository:
        for kind in (Kind.RELEASE, Kind.DATASET):
            staged = repository.artifacts.stage(payload, Manifest(kind, "rust", stage="test"))
            repository.artifacts.publish(staged, bump=Bump.MINOR, who=WHO, why="a test")
    done = cli(folder / "hub.git", "bundle", str(folder / "rust.bundle"), "release/rust", "dataset/rust")
    assert done.returncode == 0, done.stderr
    return folder / "rust.bundle"


def test_unbundle_ends_with_the_command_that_uses_what_came(cli: Any, tmp_path: Path) -> None:
    bundle = bundled(tmp_path, cli)
    other = tmp_path / "other repo.git"
    subprocess.run(["git", "init", "-q", "--bare", str(other)], check=True)
    done = cli(tmp_path, "unbundle", str(bundle), "--repo", "other repo.git")
    assert done.returncode == 0, done.stderr
    *_, count, last = done.stdout.splitlines()
    assert count == "2 refs taken in"
    assert last == "next:  workbench complete release/rust/v1.0.0 --prompt 'fn main() {' --repo 'other repo.git'"
    again = cli(other, "unbundle", str(bundle))
    assert again.stdout.splitlines() == ["nothing new: all of it is here already"]


def test_what_nobody_trusts_is_looked_at_and_then_trusted_by_the_commands_that_are_printed(
    cli: Any, tmp_path: Path
) -> None:
    bundle = bundled(tmp_path, cli)
    other = tmp_path / "other.git"
    with GitRepository(init_hub(other)) as repository:
        staged = repository.artifacts.stage(tmp_path / "payload", Manifest(Kind.METRICS, "rust", stage="test"))
        repository.artifacts.publish(staged, bump=Bump.MINOR, who=WHO, why="a test")
    done = cli(other, "unbundle", str(bundle))
    *names, count, step = done.stdout.splitlines()
    assert count == "2 refs came in; nothing of it is used yet"
    assert [name.split("/", 2)[2] for name in names] == ["dataset/rust/v1.0.0", "release/rust/v1.0.0"]
    assert "release/rust" not in cli(other, "log").stdout
    for command in (["show", names[1]], ["verify", names[1]], ["diff", *names], ["checkout", names[1], "out"]):
        looked = cli(other, *command)
        assert looked.returncode == 0, (command, looked.stderr)
    for command in (["complete", names[1], "-p", "x"], ["pin", names[1]], ["serve", names[1]]):
        used = cli(other, *command)
        assert used.returncode == 3, (command, used.stderr)
        assert step.removeprefix("next:  ") in used.stderr
    assert cli(other, "unbundle", str(bundle)).stdout.splitlines() == ["nothing new: all of it is here already"]
    assert [line.strip() for line in cli(other, "incoming").stdout.splitlines()[1:3]] == names
    trusted = cli(other, *step.removeprefix("next:  workbench ").split())
    assert trusted.stdout.splitlines()[:2] == ["dataset/rust/v1.0.0", "release/rust/v1.0.0"]
    assert cli(other, "incoming").stdout.splitlines() == ["nothing waits to be trusted"]
    assert cli(other, "show", "release/rust").returncode == 0


def test_a_name_that_nothing_resembles_is_answered_with_a_command_that_lists_what_there_is(
    cli: Any, clone: Path
) -> None:
    done = cli(clone, "show", "zzzzzz")
    assert done.returncode == 4
    assert "see `workbench log` for what there is" in done.stderr


def test_the_ledger_is_listed_with_a_few_refs_of_each_entry_and_all_of_them_are_in_its_json(
    cli: Any, tmp_path: Path
) -> None:
    hub = init_hub(tmp_path / "hub.git")
    with GitRepository(hub) as repository:
        commit = repository.objects.add_commit(EMPTY_TREE, parents=(), message="m\n", who=WHO, time_ms=1000)
        moves = [RefMove(Branch(f"b{number}"), new=commit) for number in range(8)]
        repository.ledger.change(Action.INIT, moves, who=WHO, why="many")
    listed = cli(hub, "log", "--ledger").stdout.splitlines()[-1]
    assert "heads/b0, heads/b1, heads/b2, heads/b3, heads/b4, and 3 more  Ann" in listed
    assert len(json.loads(cli(hub, "log", "--ledger", "--json").stdout)[0]["moves"]) == 8
