"""The main job, end to end, as a person drives it: push, look, complete, pin, ask, carry away, rebuild."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import anyio
import pytest
from mcp import Client, StdioServerParameters

pytestmark = [pytest.mark.xdist_group("spine"), pytest.mark.timeout(900)]
KINDS = ("raw", "filtered", "dataset", "tokenizer", "shards", "model", "metrics", "release")


def test_one_push_makes_every_artifact(built) -> None:  # type: ignore[no-untyped-def]
    assert {name.split("/")[0] for name in built.trees()} == set(KINDS)
    (run,) = built.json("runs", "list")
    assert run["state"] == "succeeded"
    assert [step["state"] for step in run["steps"]] == ["succeeded"] * 9
    assert run["trigger"].startswith("push")


def test_the_release_traces_back_to_the_crawl(built) -> None:  # type: ignore[no-untyped-def]
    lineage = built.json("show", "release/rust", "--lineage")["lineage"]
    assert {short.split("/")[0] for short in lineage} == set(KINDS) - {"release"}


def test_running_again_reuses_every_step_and_says_why(built) -> None:  # type: ignore[no-untyped-def]
    before = built.trees()
    plan = built.json("run", "--dry-run")
    assert [step["runs"] for step in plan["steps"]] == [False] * 9
    again = built.run("run").stdout
    assert "0 made, 9 reused" in again
    assert "nothing changed" in again
    assert built.trees() == before


def test_a_completion_is_the_same_with_the_same_seed(built) -> None:  # type: ignore[no-untyped-def]
    ask = ("complete", "release/rust", "-p", "pub fn alpha", "--temperature", "1.0", "--seed", "7", "-n", "12")
    first, again = built.json(*ask), built.json(*ask)
    assert first == again
    assert len(first["tokens"]) <= 12
    streamed = built.run(*ask).stdout
    assert streamed.rstrip("\n") == first["text"].rstrip("\n")


@pytest.mark.parametrize("quantisation", ["F16", "Q8_0", "Q4_K_M"])
def test_every_quantisation_fills_in_the_middle(built, quantisation: str) -> None:  # type: ignore[no-untyped-def]
    ask = ("complete", "release/rust", "-p", "pub fn f() -> u64 {\n    ", "--suffix", "\n}\n", "-q", quantisation)
    assert built.json(*ask, "-n", "8")["finish"] in ("stop", "length", "end")


def test_a_plain_git_client_and_a_bundle_carry_it_to_a_machine_without_network(built, tmp_path) -> None:  # type: ignore[no-untyped-def]
    built.run("bundle", str(tmp_path / "rust.bundle"), "release/rust")
    offline = tmp_path / "offline.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(offline)], check=True)
    environment = built.environment | {"WORKBENCH_CACHE_DIR": str(tmp_path / "cache")}
    base = [sys.executable, "-m", "workbench.cli.entry"]
    alone = ["unshare", "--net", "--map-root-user"] if shutil.which("unshare") else []
    for arguments in (
        ["unbundle", str(tmp_path / "rust.bundle"), "--repo", str(offline)],
        ["show", "release/rust", "--lineage", "--repo", str(offline)],
        ["complete", "release/rust", "-p", "pub fn alpha", "-n", "4", "--json", "--repo", str(offline)],
    ):
        done = subprocess.run([*alone, *base, *arguments], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    here = built.json("complete", "release/rust", "-p", "pub fn alpha", "-n", "4")
    assert json.loads(done.stdout)["tokens"] == here["tokens"]
    fsck = subprocess.run(["git", "--git-dir", str(offline), "fsck", "--strict"], capture_output=True, text=True)
    assert fsck.returncode == 0, fsck.stderr


def test_the_pinned_release_answers_over_mcp(built) -> None:  # type: ignore[no-untyped-def]
    do_next(built, built.run("pin", "release/rust", "--why", "test").stdout)
    assert built.git("push", "--dry-run", "hub", "main").returncode == 0

    async def talk() -> None:
        arguments = ["-m", "workbench.cli.entry", "mcp", "runner", "--repo", str(built.hub)]
        server = StdioServerParameters(command=sys.executable, args=arguments, env=built.environment)
        async with Client(server) as client:
            ask = {"prefix": "pub fn f() -> u64 {\n    ", "suffix": "\n}\n", "max_tokens": 8}
            answer = await client.call_tool("fill_in_middle", ask)
            assert not answer.is_error, answer
            assert answer.structured_content["version"] == "v1.0.0"
            assert answer.structured_content["release"] == "release/rust/v1.0.0"
            again = await client.call_tool("fill_in_middle", ask)
            assert again.structured_content["result"] == answer.structured_content["result"]

    anyio.run(talk)
    do_next(built, built.run("undo", "--why", "test").stdout)


def do_next(built, said: str) -> None:  # type: ignore[no-untyped-def]
    """Do what a command says comes next; the clone then stands where the hub does."""
    line = next(line for line in said.splitlines() if line.startswith("next:"))
    done = subprocess.run(
        ["sh", "-c", re.split(r"\s{2,}", line)[1]],
        cwd=built.clone,
        env=built.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    hub = subprocess.run(["git", "--git-dir", str(built.hub), "rev-parse", "main"], capture_output=True, text=True)
    assert built.git("rev-parse", "HEAD").stdout == hub.stdout


def test_rebuilding_from_the_crawl_gives_equal_trees(built) -> None:  # type: ignore[no-untyped-def]
    rows = built.run("verify", "--rebuild", "release/rust", "--workers", "1").stdout
    assert "DIFFERENT" not in rows
    table = rows[rows.index("artifact") :].splitlines()[1:]
    assert [line.split("/")[0] for line in table if line.rstrip().endswith("equal")] == list(KINDS)


def test_every_stored_byte_is_what_its_manifest_says(built) -> None:  # type: ignore[no-untyped-def]
    assert built.run("verify").returncode == 0
    fsck = subprocess.run(["git", "--git-dir", str(built.hub), "fsck", "--strict"], capture_output=True, text=True)
    assert fsck.returncode == 0, fsck.stderr


def test_doctor_finds_nothing_wrong(built) -> None:  # type: ignore[no-untyped-def]
    findings = built.json("doctor")
    assert [f for f in findings if f["severity"] == "error"] == []


def test_one_tokenizer_parameter_runs_what_follows_it_and_nothing_before(built) -> None:  # type: ignore[no-untyped-def]
    built.git("pull", "--quiet", "--rebase", "hub", "main")
    path = built.clone / "ci/pipelines/rust.toml"
    path.write_text(path.read_text() + "\n[stage.tokenizer]\nvocab_size = 768\n")
    built.git("commit", "--quiet", "--all", "--message", "A smaller vocabulary")
    pushed = built.git("push", "-o", "run.wait=900", "hub", "main").stderr
    assert "succeeded" in pushed, pushed
    run = built.json("runs", "list")[0]
    states = {step["stage"]: step["state"] for step in run["steps"]}
    assert [stage for stage, state in states.items() if state == "reused"] == ["crawl", "filter", "dataset"]
    assert {state for stage, state in states.items() if stage not in ("crawl", "filter", "dataset")} == {"succeeded"}
    newest = {name.rsplit("/", 1)[0]: name for name in sorted(built.trees())}
    for carrier in ("tokenizer", "shards", "model", "release"):  # the ids changed, so whoever carries them is major
        assert newest[f"{carrier}/rust"] == f"{carrier}/rust/v2.0.0"
    assert newest["dataset/rust"] == "dataset/rust/v1.0.0"
    reason = built.run("runs", "show", run["id"]).stdout
    assert "vocab_size" in reason


def test_with_a_compiler_that_does_not_work_evaluation_reports_without_it_and_the_plan_says_so(built, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """rustup's stand-in for rustc, without a toolchain: the training was done in vain."""
    (tmp_path / "rustc").write_text("#!/bin/sh\necho 'error: rustup could not choose a version of rustc' >&2\nexit 1\n")
    (tmp_path / "rustc").chmod(0o755)
    path = f"{tmp_path}:{built.environment['PATH']}"
    here = dataclasses.replace(built, environment={**built.environment, "PATH": path})
    only = ("run", "--only", "evaluate", "--force")
    assert "nothing is compiled: rustc cannot be used: rustup could not choose" in here.run(*only, "--dry-run").stdout
    said = here.run(*only).stdout
    assert "compile checks are refused: rustc cannot be used: rustup could not choose" in said
    assert "1 made" in said
    (found,) = [finding for finding in here.json("doctor") if finding["what"].startswith("rustc")]
    assert (found["severity"], found["fix"]) == ("warning", "rustup default stable")
