"""Killed at random moments, over the stages and the push: never half an artifact, and the same trees in the end."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import pytest

SEED = int(os.environ.get("WORKBENCH_KILL_SEED", "20261121"))


def check_whole(workspace) -> None:  # type: ignore[no-untyped-def]
    """fsck is clean and every artifact tag names a commit with a manifest and a payload."""
    git = ["git", "--git-dir", str(workspace.hub)]
    fsck = subprocess.run([*git, "fsck", "--strict", "--no-dangling"], capture_output=True, text=True)
    assert fsck.returncode == 0, fsck.stdout + fsck.stderr
    tags = subprocess.run([*git, "tag", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for tag in tags:
        for part in ("manifest.json", "payload"):
            subprocess.run([*git, "cat-file", "-e", f"{tag}:{part}"], check=True)


def run_killed(workspace, kill_all_of, kills: int, longest_s: float) -> None:  # type: ignore[no-untyped-def]
    """Start the work by a command or by a push, and kill all of it at a random moment, ``kills`` times."""
    pick = random.Random(SEED)
    cli = [sys.executable, "-m", "workbench.cli.entry", "run", "--repo", str(workspace.hub)]
    for number in range(kills):
        if pick.random() < 0.5:
            workspace.git("commit", "--quiet", "--allow-empty", "--message", f"push {number}")
            option = "stage.run=" + pick.choice(["crawl", "tokenizer", "shard", "train", "package"])
            command = ["git", "push", "-o", option, "-o", "run.wait=600", str(workspace.hub), "main"]
        else:
            command = cli
        started = subprocess.Popen(
            command,
            cwd=workspace.clone,
            env=workspace.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(pick.uniform(0.02, longest_s))  # the moment of the kill is what is random here
        while kill_all_of(workspace.hub):
            time.sleep(0.02)
        started.wait(60)
        if number % 10 == 9:
            check_whole(workspace)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.xdist_group("spine")
def test_fifty_kills_end_in_the_trees_of_an_undisturbed_run(built, new_workspace, kill_all_of) -> None:  # type: ignore[no-untyped-def]
    workspace = new_workspace("killed")
    pipeline = "ci/pipelines/rust.toml"
    first = built.git("log", "--reverse", "--format=%H", "--", pipeline).stdout.split()[1]
    (workspace.clone / pipeline).write_text(built.git("show", f"{first}:{pipeline}").stdout)
    workspace.git("commit", "--quiet", "--all", "--message", "The corpus of the undisturbed run")
    run_killed(workspace, kill_all_of, kills=50, longest_s=9.0)
    check_whole(workspace)
    workspace.git("push", "--quiet", str(workspace.hub), "main")
    kill_all_of(workspace.hub)
    workspace.run("run")
    check_whole(workspace)
    undisturbed = {name: tree for name, tree in built.trees().items() if name.endswith("/v1.0.0")}
    assert {name: tree for name, tree in workspace.trees().items() if name in undisturbed} == undisturbed
