"""`workbench contract` shows what a commit's tools promise, and records it where it is not recorded yet."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.app import wiring

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def agent(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone whose hub has the template on main, code that ends its process on the branch ``bad``, and a tag by hand
    on each."""
    if missing := wiring.sandbox().probe():
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("contract")
    assert cli(folder, "init", "agent").returncode == 0
    clone, hub = folder / "agent", folder / "agent.git"

    def git(*words: str, where: Path = clone) -> str:
        who = ["-c", "user.name=Ada", "-c", "user.email=a@b.c"]
        return subprocess.run(["git", *who, *words], cwd=where, check=True, capture_output=True, text=True).stdout

    main = git("rev-parse", "HEAD").strip()
    (clone / "agents" / "bad.py").write_text("import os\nos._exit(3)\n")
    git("checkout", "-q", "-b", "bad")
    git("add", "-A")
    git("commit", "-qm", "bad")
    git("push", "-q", "--no-verify", str(hub), "bad:refs/heads/tmp", "-o", "ci.skip")
    git("update-ref", "refs/heads/bad", git("rev-parse", "bad").strip(), where=hub)
    for tag, commit in (("v1.0.0", main), ("v2.0.0", git("rev-parse", "bad").strip())):
        git("tag", "-a", "-m", tag, tag, commit, where=hub)
    return clone


def test_a_contract_is_shown_and_recorded_for_all_who_read(cli: Cli, agent: Path) -> None:
    before = json.loads(cli(agent, "show", "v1.0.0", "--json").stdout)
    assert before["contract"] is None
    told = cli(agent, *before["no_contract"].split("`")[1].split()[1:])  # as it says
    assert told.returncode == 0, told.stderr
    assert "fill_in_middle  max_tokens, prefix, seed, suffix" in told.stdout
    after = json.loads(cli(agent, "show", "v1.0.0", "--json").stdout)
    assert list(after["contract"]["tools"]) == ["complete", "fill_in_middle", "search"]
    assert "tools    complete, fill_in_middle, search" in cli(agent, "show", "v1.0.0").stdout
    assert json.loads(cli(agent, "contract", "--json").stdout)["contract"] == after["contract"]


def test_code_that_has_none_is_told_with_the_reason_and_ends_with_1(cli: Cli, agent: Path) -> None:
    told = cli(agent, "contract", "bad")
    assert told.returncode == 1
    assert "has no contract: its code ended the process while it was loaded (exit code 3)" in told.stdout
    assert "tools    none: its code ended the process" in cli(agent, "show", "v2.0.0").stdout
    asked = json.loads(cli(agent, "contract", "v2.0.0", "--again", "--json").stdout)
    assert (asked["contract"], asked["no_contract"][:8]) == (None, "its code")


def test_a_runner_takes_a_version_or_a_channel_by_version_and_any_commit_by_commit(cli: Cli, agent: Path) -> None:
    for words, said in (
        (("--version", "main"), "there is no version or channel 'main'"),
        (("--version", "bad"), "it is a commit: workbench mcp runner --commit bad"),
        (("--version", "v1.0.9"), "did you mean v1.0.0"),
        (("--version", "active"), "workbench pin"),
        (("--commit", "nowhere"), "nothing is called 'nowhere'"),
    ):
        done = cli(agent, "mcp", "runner", *words)
        assert done.returncode == 4, done.stderr
        assert said in done.stderr
    served = cli(agent, "mcp", "runner", "--commit", "main", input="", stdin=None)
    assert served.returncode == 0, served.stderr
    both = cli(agent, "mcp", "runner", "--version", "v1.0.0", "--commit", "main")
    assert (both.returncode, "give one of the two" in both.stderr) == (2, True), both.stderr
