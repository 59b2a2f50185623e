"""Making a workspace: whole, or not at all."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.app import wiring
from workbench.app.template import template_files
from workbench.app.workspace import init_workspace
from workbench.domain.errors import Refused, UserError, WorkbenchError, WorldError

WHO = "Ada <ada@example.org>"


def test_a_workspace_holds_what_the_readme_says_of_it(tmp_path: Path) -> None:
    made = init_workspace(tmp_path / "new folder" / "agent é", who=WHO)
    assert sorted(path.name for path in made.clone.iterdir()) == [
        ".git", ".gitignore", "README.md", "agents", "ci", "hooks", "state", "tests",
    ]  # fmt: skip
    for word in ("agents/", "state/", "tests/micro/", "ci/tiers.toml", "ci/pipelines/rust.toml"):
        assert word in (made.clone / "README.md").read_text()
        assert (made.clone / word).exists()
    assert sorted(path.name for path in made.clone.parent.iterdir()) == ["agent é", "agent é.git"]


def test_the_templates_python_parses_and_names_no_place_of_this_machine() -> None:
    for name, data in template_files().items():
        text = data.decode()
        assert str(Path.home()) + "/" not in text
        if name.endswith(".py"):
            ast.parse(text, name)


@pytest.mark.parametrize(("name", "says"), [("agent.git", "without .git"), ("/", "no name")])
def test_what_is_no_name_for_a_clone_is_refused(
    tmp_path: Path, name: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says):
        init_workspace(Path(name), who=WHO)
    assert list(tmp_path.iterdir()) == []


def test_dots_are_followed_and_an_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agent" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "agent" / "below")
    assert init_workspace(Path("."), who=WHO).clone == tmp_path / "agent" / "below"
    with pytest.raises(Refused, match="not empty"):
        init_workspace(Path(".."), who=WHO)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent"]


@pytest.mark.parametrize("there", ["agent", "agent.git"])
@pytest.mark.parametrize("kind", ["file", "broken link"])
def test_what_is_there_is_refused(tmp_path: Path, there: str, kind: str) -> None:
    place = tmp_path / there
    place.write_text("mine") if kind == "file" else place.symlink_to("nowhere")
    with pytest.raises(Refused, match="is there already"):
        init_workspace(tmp_path / "agent", who=WHO)
    assert list(tmp_path.iterdir()) == [place]


def test_nothing_is_left_of_a_workspace_that_could_not_be_cloned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    real = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True).stdout.strip()
    (programs / "git").write_text(
        f'#!/bin/sh\n[ "$1" = clone ] && {{ echo "fatal: no" >&2; exit 128; }}\nexec {real} "$@"\n'
    )
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(WorldError, match="fatal: no"):
        init_workspace(tmp_path / "agent", who=WHO)
    assert list(tmp_path.iterdir()) == [programs]


def test_of_two_that_make_one_workspace_at_once_one_is_refused_and_the_other_has_it_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workbench.cli.entry", "init", "agent"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 3], said
    assert any(b"is there already" in text for text in said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent", "agent.git"]
    assert subprocess.run(["git", "-C", str(tmp_path / "agent"), "status"], capture_output=True).returncode == 0


def test_without_git_the_missing_program_is_named_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorkbenchError, match="git program is not installed") as error:
        init_workspace(tmp_path / "agent", who=WHO)
    assert error.value.exit_code == 7
    assert list(tmp_path.iterdir()) == []


def test_a_hub_answers_in_a_place_that_cannot_be_moved_away_from(tmp_path: Path) -> None:
    """The hub is built beside its place and moved there: nothing of it may remember where it was built."""
    made = init_workspace(tmp_path / "agent", who=WHO)
    for path in made.hub.rglob("*"):
        if path.is_file() and path.stat().st_size < 1 << 20:
            assert b"workbench-temporary" not in path.read_bytes(), path


def test_the_tests_of_a_new_workspace_pass_in_the_tier_that_a_push_starts(tmp_path: Path) -> None:
    missing = wiring.sandbox().probe()
    if missing:
        pytest.skip(missing)
    made = init_workspace(tmp_path / "agent", who=WHO)
    (made.clone / "agents" / "README.md").write_text("# agents\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "WORKBENCH_"))}
    environment = {**kept, "WORKBENCH_HUB_IDLE_S": "1"}
    who = ["-c", "user.name=Ada", "-c", "user.email=a@b.c"]
    for command in ([*who, "commit", "-qam", "docs"], ["push", "-o", "run.wait=120", "hub", "main"]):
        done = subprocess.run(["git", *command], cwd=made.clone, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "micro-tests succeeded" in done.stderr, done.stderr
    assert "4 passed" in done.stderr or "3 passed, 1 skipped" in done.stderr, done.stderr
