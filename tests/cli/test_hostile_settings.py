"""A folder from elsewhere may hold a `.git` whose settings name programs: no command that reads runs one of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

SETTINGS = """
[core]
	fsmonitor = {ran} fsmonitor
	sshCommand = {ran} ssh
	pager = {ran} pager
	hooksPath = {hooks}
	alternateRefsCommand = {ran} alternates
[diff]
	external = {ran} diff
[diff "evil"]
	textconv = {ran} textconv
[filter "e=v.il"]
	clean = {ran} clean
	smudge = {ran} smudge
	required = true
[filter "process"]
	process = {ran} process
[gpg]
	program = {ran} gpg
[log]
	showSignature = true
[alias]
	status = !{ran} alias
[extensions]
	partialClone = evil
[remote "evil"]
	url = {nowhere}
	promisor = true
	uploadpack = {ran} fetch
[protocol]
	allow = always
"""
READING = (
    "status", "log", "log --ledger", "show main", "show v0.0.1", "show release/rust", "why crawl", "run --dry-run",
    "verify", "doctor", "incoming", "runs list", "contract main", "bundle ../out v0.0.1", "checkout release/rust ../to",
)  # fmt: skip


@pytest.fixture
def workspace(cli: Cli, tmp_path: Path) -> Path:
    """A clone and its hub, both with such settings; in both is a tag whose object is missing, and a file to filter."""
    assert cli(tmp_path, "init", "agent").returncode == 0
    program, hooks, nowhere = tmp_path / "program", tmp_path / "hooks", tmp_path / "nowhere"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/ran\nexit 1\n')
    program.chmod(0o755)
    hooks.mkdir()
    nowhere.mkdir()
    for name in ("reference-transaction", "post-index-change", "pre-auto-gc"):
        (hooks / name).symlink_to(program)
    for git_dir in (tmp_path / "agent/.git", tmp_path / "agent.git"):
        with open(git_dir / "config", "a") as file:
            file.write(SETTINGS.format(ran=program, hooks=hooks, nowhere=nowhere))
        (git_dir / "info/attributes").write_text("*.md filter=process diff=evil\n*.py filter=e=v.il\n")
        for name in ("v0.0.1", "release/rust/v1.0.0"):
            tag = git_dir / "refs/tags" / name
            tag.parent.mkdir(exist_ok=True, parents=True)
            tag.write_text("1" * 40 + "\n")
    for path in (*(tmp_path / "agent").rglob("*.py"), tmp_path / "agent/README.md"):
        path.touch()  # git looks at the content of what has another time
    return tmp_path


def test_reading_in_a_repository_with_hostile_settings_runs_no_program(cli: Cli, workspace: Path) -> None:
    for place in ("agent", "agent.git"):
        for command in READING:
            done = cli(workspace / place, *command.split())
            assert "Traceback" not in done.stderr, (place, command, done.stderr)
            assert not (workspace / "ran").exists(), (place, command, (workspace / "ran").read_text())


def test_the_settings_would_run_programs_under_git_alone(workspace: Path) -> None:
    subprocess.run(["git", "-C", str(workspace / "agent"), "status"], capture_output=True, check=False)
    assert {"fsmonitor", "process"} <= set((workspace / "ran").read_text().split())


def test_status_goes_on_without_a_tag_whose_object_is_missing(cli: Cli, workspace: Path) -> None:
    done = cli(workspace / "agent", "status")
    assert done.returncode == 0, done.stderr
    assert "main, 0 changed" in done.stdout.replace("...hub/main", "")
