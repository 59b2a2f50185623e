"""The commands as people meet them: help with examples, errors with a next step, exit codes, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from workbench.cli.commands import app
from workbench.cli.status import _USAGE


def every_command() -> list[tuple[str, ...]]:
    group = typer.main.get_command(app)
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found += [(name, sub) for sub in inner] if inner else [(name,)]
    return found


def test_the_commands_are_those_that_the_readme_names() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for name in ("init", "run", "show", "complete", "pin", "mcp", "versions", "bundle", "verify", "doctor", "undo"):
        assert f"workbench {name}" in readme
        assert name in {command[0] for command in every_command()}


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_every_command_has_help_with_an_example(cli, clone: Path, command: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    done = cli(clone, *command, "--help")
    assert done.returncode == 0
    assert "Example:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["frobnicate"], 2, "No such command"),
        (["status", "--colour"], 2, _USAGE),
        (["show"], 2, "Missing argument"),
        (["show", "nothing"], 4, "workbench log"),
        (["show", "release/none"], 4, "there is no release/none"),
        (["show", "releases/none/v1.0.0"], 2, "KIND/NAME"),
        (["show", "release/none/v1"], 2, "vMAJOR.MINOR.PATCH"),
        (["complete", "release/none", "-p", "x"], 4, "there is no release/none"),
        (["pin", "release/none"], 4, "there is no release/none"),
        (["pin", "release/none", "--bump", "huge"], 2, "major, minor, patch"),
        (["mcp", "runner"], 4, "workbench pin"),
        (["run", "nopipeline"], 4, "rust"),
        (["run", "--only", "tokenzier"], 4, "tokenizer"),
        (["why", "tokenzier"], 4, "tokenizer"),
        (["runs", "show", "01ARZ3NDEKTSV4RRFFQ69G5FAV"], 4, "workbench runs list"),
        (["runs", "cancel", "abc"], 4, "6 characters"),
        (["unbundle", "nothing.bundle"], 2, "nothing.bundle"),
        (["import", "nothing.gguf", "--name", "x", "--license", "MIT"], 4, "no such file"),
        (["gc", "--cache", "lots"], 2, "10G"),
        (["undo"], 4, "undo"),
        (["verify", "--rebuild"], 2, "workbench verify --rebuild"),
        (["status", "--repo", "/nonexistent"], 4, "no repository at"),
        (["log", "--repo", "/tmp"], 4, "workbench init"),
        (["log", "--repo", ""], 2, "it is empty"),
        (["status", "--repo", ""], 2, "--repo is empty"),
        (["run", "--only", ""], 2, "it is empty"),
        (["run", ""], 2, "it is empty"),
        (["verify", ""], 2, "it is empty"),
        (["run", "--resume", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "--dry-run"], 2, "--resume"),
        (["log", "-n", "-5"], 2, "'-n'"),
        (["show", "relase/rust"], 2, "did you mean release/rust?"),
        (["undo", "1"], 3, "made main"),
        (["undo", "7"], 4, "workbench log --ledger"),
        (["hook", "post-receive"], 2, "pre-receive"),
        (["hook", "pre-receive"], 2, "git push hub main"),
        (["versions", "--port", "99999"], 2, "--port"),
        (["bundle", "x.bundle", "main"], 2, "KIND/NAME or vX.Y.Z"),
        (["import", ".", "--name", "x", "--license", "MIT"], 4, "no plain file"),
        (["init", ""], 2, "workbench init agent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_answered_with_what_to_do_and_changes_nothing(  # type: ignore[no-untyped-def]
    cli, clone: Path, arguments: list[str], code: int, says: str
) -> None:
    refs = ["git", "--git-dir", str(clone) + ".git", "for-each-ref"]
    before = subprocess.run(refs, capture_output=True).stdout
    done = cli(clone, *arguments)
    assert done.returncode == code, done.stderr + done.stdout
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert subprocess.run(refs, capture_output=True).stdout == before


@pytest.mark.parametrize(
    "command", [["status"], ["log"], ["log", "--ledger"], ["doctor"], ["runs", "list"], ["run", "--dry-run"]]
)
def test_programs_are_answered_in_json(cli, clone: Path, command: list[str]) -> None:  # type: ignore[no-untyped-def]
    json.loads(cli(clone, *command, "--json").stdout)


def test_a_command_answers_the_same_in_the_hub_and_in_a_folder_of_the_clone(cli, clone: Path) -> None:  # type: ignore[no-untyped-def]
    hub = Path(str(clone) + ".git")
    answers = {cli(folder, "log", "--ledger", "--json").stdout for folder in (hub, clone, clone / "agents")}
    assert len(answers) == 1
    assert cli(clone.parent, "log", "--ledger", "--json", "--repo", str(hub)).stdout in answers


def test_init_refuses_what_is_there(cli, clone: Path) -> None:  # type: ignore[no-untyped-def]
    done = cli(clone.parent, "init", "agent")
    assert done.returncode == 3
    assert "is there already" in done.stderr


def test_a_clone_by_plain_git_is_a_store_of_its_own(cli, clone: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    subprocess.run(["git", "clone", "--quiet", "--no-local", str(clone), str(tmp_path / "copy")], check=True)
    assert cli(tmp_path / "copy", "log", "--json").returncode == 0


def test_a_missing_hub_says_how_to_point_at_it(cli, clone: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    subprocess.run(["git", "clone", "--quiet", str(clone), str(tmp_path / "copy")], check=True)
    subprocess.run(["git", "-C", str(tmp_path / "copy"), "remote", "rename", "origin", "hub"], check=True)
    gone = ["git", "-C", str(tmp_path / "copy"), "remote", "set-url", "hub", str(tmp_path / "gone.git")]
    subprocess.run(gone, check=True)
    done = cli(tmp_path / "copy", "status")
    assert done.returncode == 2
    assert "git remote set-url hub" in done.stderr


def test_status_imports_next_to_nothing(cli, clone: Path) -> None:  # type: ignore[no-untyped-def]
    import sys

    code = (
        "import sys; sys.argv = ['workbench', 'status']\n"
        "from workbench.cli.entry import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'typer', 'rich', 'pydantic', 'pygit2', 'torch', 'dataclasses', 'subprocess', 'json', 'contextlib'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=clone, check=True, capture_output=True)


def test_git_finds_the_command_as_its_own(clone: Path, tmp_path: Path) -> None:
    import os
    import sys

    programs = Path(sys.executable).parent
    if not (programs / "git-workbench").exists():
        pytest.fail("the package is installed without its scripts")
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    for where in (["-C", str(clone)], [f"--git-dir={clone}.git"]):
        done = subprocess.run(
            ["git", *where, "workbench", "status", "--json"], env=environment, capture_output=True, cwd=tmp_path
        )
        assert json.loads(done.stdout)["store"] == f"{clone}.git", done.stderr


def test_the_version_is_told(cli, clone: Path) -> None:  # type: ignore[no-untyped-def]
    import workbench

    assert cli(clone.parent, "--version").stdout == f"workbench {workbench.__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        ["checkout", "release/none", "x"],
        ["bundle", "x", "release/none"],
        ["unbundle", "x"],
        ["gc"],
        ["runs", "cancel", "x"],
    ],
    ids=" ".join,
)
def test_every_command_that_answers_takes_json(cli, clone: Path, command: list[str]) -> None:  # type: ignore[no-untyped-def]
    json.loads(cli(clone, *command, "--json").stdout)


def test_a_dry_run_says_before_anything_is_trained_that_nothing_will_be_compiled(clone: Path, tmp_path: Path) -> None:
    """rustup's stand-in for rustc, without a toolchain."""
    (tmp_path / "rustc").write_text("#!/bin/sh\necho 'error: rustup could not choose a version' >&2\nexit 1\n")
    (tmp_path / "rustc").chmod(0o755)
    command = [sys.executable, "-m", "workbench.cli.entry", "run", "--dry-run"]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True).stdout
    assert (
        "nothing is compiled: rustc cannot be used: rustup could not choose a version (rustup default stable)" in said
    )


def test_doctor_names_in_a_line_what_a_plain_repository_lacks_and_its_command_runs_from_where_it_was_asked(
    cli, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "a b.git"], check=True)
    lines = cli(tmp_path, "doctor", "--quick", "--repo", "a b.git").stdout.splitlines()
    (at,) = [number for number, line in enumerate(lines) if "settings are git's own" in line]
    assert lines[at + 1].strip() == "mend: workbench doctor --mend --repo 'a b.git'"
    assert not [line for line in lines if "warning setting" in line]
    cli(tmp_path, "doctor", "--quick", "--mend", "--repo", "a b.git")
    assert "settings are git's own" not in cli(tmp_path, "doctor", "--quick", "--repo", "a b.git").stdout


def test_doctor_works_outside_a_repository(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = cli(tmp_path, "doctor", "--quick", "--json")
    assert done.returncode == 0, done.stderr
    assert any("cargo" in finding["what"] for finding in json.loads(done.stdout))
    assert cli(tmp_path, "doctor", "--mend").returncode == 4, "there is nothing to mend"


OWN_STAGE = """
format = 1
name = "toy"
use = []

[[stages]]
name = "words"
command = ["python3", "tools/words.py"]
makes = "raw"
code = ["tools/words.py"]
"""


def test_a_failed_stage_is_told_with_the_end_of_its_log_and_a_command_that_shows_all_of_it(  # type: ignore[no-untyped-def]
    cli, tmp_path: Path
) -> None:
    assert cli(tmp_path, "init", "agent").returncode == 0
    place = tmp_path / "agent"
    (place / "tools").mkdir()
    (place / "tools/words.py").write_text(
        "for n in range(40): print('line', n, flush=True)\nraise SystemExit('no good')\n"
    )
    (place / "ci/pipelines/toy.toml").write_text(OWN_STAGE)
    who = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    for command in (["add", "--all"], [*who, "commit", "-qm", "toy"], ["push", "-q", "-o", "ci.skip", "hub", "main"]):
        subprocess.run(["git", *command], cwd=place, check=True, capture_output=True)
    ran = cli(place, "run", "toy")
    assert ran.returncode == 9
    assert "words ended with exit code 1: no good\n  | line 3" in ran.stdout
    (named,) = {line.split(": ")[1] for line in ran.stdout.splitlines() if "the whole log" in line}
    tail = cli(place, *named.split()[1:])
    assert tail.returncode == 9
    assert all(f"| line {number}\n" in tail.stdout for number in range(40))
    shown = cli(place, *named.replace("tail", "show").split()[1:]).stdout
    assert "  | line 39\n" in shown
    assert named in shown
