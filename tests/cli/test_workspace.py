"""Sizes as people write them; what a work tree has to do with a command."""

from __future__ import annotations

import fcntl
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from workbench.cli.context import main_is_checked_out
from workbench.cli.locate import locate
from workbench.cli.workspace import parse_size
from workbench.domain.errors import UserError
from workbench.domain.manifest import Manifest
from workbench.domain.refs import Kind
from workbench.domain.version import Bump
from workbench.store.git.repository import GitRepository


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("1K", 1024), ("10G", 10 << 30), ("10GB", 10 << 30), ("2GiB", 2 << 30), ("5m", 5 << 20), ("0", 0)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "1.5G", "-1", "10X", "ten"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="not a size"):
        parse_size(text)


def test_what_is_not_committed_does_not_count_and_that_is_said(cli: Any, clone: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", "-o", "hub", f"{clone}.git", str(tmp_path / "own")], check=True)
    for command in (["run", "--dry-run", "--json"], ["why", "crawl", "--json"]):
        assert cli(tmp_path / "own", *command).stderr == ""
    with (tmp_path / "own/ci/pipelines/rust.toml").open("a") as file:
        file.write("# a thought\n")
    for command in (["run", "--dry-run", "--json"], ["why", "crawl", "--json"]):
        assert "not committed do not count" in cli(tmp_path / "own", *command).stderr


def test_a_commit_that_the_hub_does_not_have_is_pushed_first(cli: Any, clone: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    subprocess.run(["git", "clone", "-q", "-o", "hub", f"{clone}.git", str(own)], check=True)
    who = ["-c", "user.name=Ada", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(own), *who, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    done = cli(own, "run", "--dry-run")
    assert (done.returncode, "git push -o ci.skip hub HEAD" in done.stderr) == (4, True)


def test_a_pin_under_ones_own_work_tree_says_how_it_catches_up(cli: Any, clone: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    subprocess.run(["git", "clone", "-q", "-o", "upstream", f"{clone}.git", str(own)], check=True)
    (tmp_path / "payload").mkdir()
    (tmp_path / "payload/a.gguf").write_bytes(b"not opened here")
    with GitRepository(own / ".git") as repository:
        staged = repository.artifacts.stage(tmp_path / "payload", Manifest(Kind.RELEASE, "rust", stage="test"))
        repository.artifacts.publish(staged, bump=Bump.MINOR, who="Ada <a@b.c>", why="a test")
    for command in (["pin", "release/rust"], ["undo"]):
        last = cli(own, *command).stdout.splitlines()[-1]
        assert subprocess.run(["git", "-C", str(own), "status", "--porcelain"], capture_output=True).stdout
        assert last.startswith("next:  git restore --staged --worktree state ")
        subprocess.run(["git", "restore", "--staged", "--worktree", "state"], cwd=own, check=True)
        assert not subprocess.run(["git", "-C", str(own), "status", "--porcelain"], capture_output=True).stdout


def test_a_linked_work_tree_is_told_of_its_own_head(cli: Any, clone: Path, tmp_path: Path) -> None:
    own, linked = tmp_path / "own", tmp_path / "linked"
    subprocess.run(["git", "clone", "-q", "-o", "upstream", f"{clone}.git", str(own)], check=True)
    subprocess.run(["git", "-C", str(own), "checkout", "-q", "-b", "topic"], check=True)
    who = ["-c", "user.name=Ada", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(own), *who, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    subprocess.run(["git", "-C", str(own), "worktree", "add", "-q", str(linked), "main"], check=True)
    for folder, branch in ((own, "topic"), (linked, "main")):
        said = json.loads(cli(folder, "show", "HEAD", "--json").stdout)["commit"]
        with GitRepository(own / ".git") as repository:
            assert said == repository.refs.get(f"refs/heads/{branch}")
        assert main_is_checked_out(locate(start=str(folder))) == (branch == "main")


def test_status_tells_the_runs_that_somebody_walks_and_no_others(cli: Any, clone: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    subprocess.run(["git", "clone", "-q", "-o", "upstream", f"{clone}.git", str(own)], check=True)
    folders = [
        own / ".git/workbench/steps" / run for run in ("01M7YGXS4FZ26NGGWG9K25MMFW", "01M7YH9HRABFZ45RYS0V07FWKW")
    ]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "lock").touch()
    with (folders[0] / "lock").open("rb") as walked:
        fcntl.flock(walked, fcntl.LOCK_EX)
        assert json.loads(cli(own, "status", "--json").stdout)["running"] == [folders[0].name]
        assert f"in progress: {folders[0].name}\n" in cli(own, "status").stdout
    assert json.loads(cli(own, "status", "--json").stdout)["running"] == []
