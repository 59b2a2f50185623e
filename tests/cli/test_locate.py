"""Which repository a command means, from wherever it is given."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from workbench.cli import context
from workbench.cli.locate import locate
from workbench.domain.errors import NotFound, UserError


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A bare repository that looks like a hub, with one commit on main and one on topic."""
    hub, work = tmp_path / "a hub é.git", tmp_path / "made"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(hub))
    (hub / "workbench").mkdir()
    git(tmp_path, "init", "-q", "-b", "main", str(work))
    for branch in ("main", "topic"):
        git(work, "switch", "-q", *([] if branch == "main" else ["-c"]), branch, check=False)
        git(work, "-c", "user.name=Ada", "-c", "user.email=a@b.c", "commit", "-q", "--allow-empty", "-m", branch)
        git(work, "push", "-q", str(hub), branch)
    return hub


@pytest.fixture
def clone(hub: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "-q", "-o", "hub", str(hub), "clone")
    return tmp_path / "clone"


def git(folder: Path, *arguments: str, check: bool = True) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_clone_leads_to_its_hub_from_every_folder_of_it(clone: Path, hub: Path) -> None:
    (clone / "deep" / "er").mkdir(parents=True)
    for place in (clone, clone / "deep" / "er", clone / ".git", clone / ".git" / "refs"):
        found = locate(start=str(place))
        assert (found.store, found.worktree, found.remote) == (str(hub), str(clone), "hub")
    assert locate(str(clone / ".git")).store == str(hub)


@pytest.mark.parametrize(
    "url",
    [
        "file://{hub}",
        "file://{quoted}",
        "file://localhost{quoted}",
        "{hub}",
        "../a hub é.git",
        "../clone/../a hub é.git",
    ],
)
def test_every_spelling_of_a_path_is_understood(clone: Path, hub: Path, url: str) -> None:
    quoted = str(hub).replace(" ", "%20").replace("é", "%C3%A9")
    git(clone, "remote", "set-url", "hub", url.format(hub=hub, quoted=quoted))
    assert locate(str(clone)).store == str(hub)


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "ha#sh", "semi;colon", " blank ", "new\nline", "t\tb"])
def test_names_that_git_writes_in_quotes_are_understood(clone: Path, hub: Path, name: str) -> None:
    moved = hub.rename(hub.with_name(name))
    git(clone, "remote", "set-url", "hub", str(moved))
    assert locate(str(clone)).store == str(moved)


@pytest.mark.parametrize(
    "written",
    [
        '[remote "hub"]\n\turl = {hub} ; the hub\n',
        '[remote "hub"]\n\tpushurl = /elsewhere\n\tURL={hub}# the hub\n',
        '[Remote "hub"] url = {hub}  \t\r\n',
        '[remote "hub"]\n\turl = {head}\\\n{tail} ; cut in two\n',
        '[remote "hub"]\n\turl = "{head}"{tail}\n[remote "other"]\n\turl = /elsewhere\n',
        '[remote "other"]\n\turl = /elsewhere\n[remote "hub"]\n\turl = {hub}\n\turl = /second\n',
    ],
)
def test_a_url_is_read_as_git_reads_it_however_it_was_written(clone: Path, hub: Path, written: str) -> None:
    git(clone, "remote", "remove", "hub")
    with open(clone / ".git" / "config", "a", newline="") as config:
        config.write(written.format(hub=hub, head=str(hub)[:9], tail=str(hub)[9:]))
    assert git(clone, "remote", "get-url", "hub") == str(hub)
    assert locate(str(clone)).store == str(hub)


@pytest.mark.parametrize(
    "url", ["ssh://localhost/x.git", "localhost:x.git", "ada@localhost:x/y.git", "https://localhost/x.git"]
)
def test_a_hub_on_another_machine_leaves_the_clone_a_store_of_its_own(clone: Path, url: str) -> None:
    git(clone, "remote", "set-url", "hub", url)
    found = locate(str(clone))
    assert (found.store, found.remote) == (str(clone / ".git"), "")


def test_a_hub_that_has_gone_is_an_error_that_says_where_it_was(clone: Path, hub: Path) -> None:
    hub.rename(hub.with_name("elsewhere.git"))
    with pytest.raises(UserError, match=r"a hub é\.git"):
        locate(str(clone))


def test_a_linked_worktree_has_a_head_of_its_own(clone: Path, hub: Path) -> None:
    git(clone, "worktree", "add", "-q", "../linked", "topic")
    found = locate(start=str(clone.parent / "linked"))
    assert found.store == str(hub)
    assert context.source_commit(found) == git(hub, "rev-parse", "topic")
    assert context.source_commit(locate(start=str(clone))) == git(hub, "rev-parse", "main")
    assert context.source_commit(locate(str(hub))) == git(hub, "rev-parse", "main")


def test_what_git_starts_in_a_linked_worktree_finds_it(clone: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a hook or an alias: git says where the work tree's own part of the repository is."""
    git(clone, "worktree", "add", "-q", "../linked", "topic")
    linked = clone.parent / "linked"
    monkeypatch.chdir(linked)
    monkeypatch.setenv("GIT_DIR", git(linked, "rev-parse", "--absolute-git-dir"))
    found = locate()
    assert (found.store, found.clone, found.worktree) == (str(hub), str(clone / ".git"), str(linked))
    assert context.source_commit(found) == git(hub, "rev-parse", "topic")


def test_git_says_which_repository_it_was_asked_for(
    clone: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(hub))  # git --git-dir=… workbench log
    assert locate().store == str(hub)
    assert locate(str(clone)).worktree == str(clone)


def test_a_folder_that_was_removed_under_us_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.delenv("GIT_DIR", raising=False)
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(NotFound, match="removed"):
        locate()
