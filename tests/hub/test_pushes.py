"""Pushes by real git through real hooks: what is started and said, what is refused, what survives a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.cli import hook_client


@pytest.fixture
def started(hub):  # type: ignore[no-untyped-def]
    """A hub with a main and a version, all of it handled."""
    hub.commit("first", README="hello\n")
    hub.git("tag", "-a", "v1.0.0", "-m", "one")
    assert hub.push("-o", "ci.skip", "main", "v1.0.0").accepted
    hub.settle()
    return hub


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("ci.skp", "ci.skip"),
        ("run.wiat", "run.wait"),
        ("ci.tier=quick", "micro"),
        ("ci.tier", "ci.tier"),
        ("run.wait=soon", "run.wait"),
        ("release.bump=huge", "major"),
        ("stage.run=tokenzier", "tokenizer"),
        ("ci.variable=novalue", "ci.variable"),
        ("x" * 300, "option"),
        ("ci.variable=NAME=M\udcfcller", "option is not UTF-8: 'ci.variable=NAME=M\\xfcller'"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_right_and_changes_nothing(shared_hub, option: str, says: str) -> None:  # type: ignore[no-untyped-def]
    before = shared_hub.source_refs()
    shared_hub.commit("second", README="two\n")
    pushed = shared_hub.push("-o", option, "main")
    assert not pushed.accepted
    assert says in pushed.text
    assert shared_hub.source_refs() == before


@pytest.mark.parametrize(
    ("prepare", "refspec", "says"),
    [
        ("git tag -f -a v1.0.0 -m again", "+refs/tags/v1.0.0", "v1.0.0"),
        ("true", ":refs/tags/v1.0.0", "v1.0.0"),
        ("true", ":refs/heads/main", "main"),
        ("git tag light", "refs/tags/light", "light"),
        ("git tag v1.1.0", "refs/tags/v1.1.0", "annotated"),
        ("git tag -a v0.9.0 -m old", "refs/tags/v0.9.0", "v0.9.0"),
        ("git tag -a v01.2.0 -m odd", "refs/tags/v01.2.0", "v01.2.0"),
        ("git checkout -q --orphan other && git commit -q -m rewritten", "+other:main", "would lose commits"),
        ("true", "HEAD:refs/workbench/ledger", "refs/workbench"),
        ("true", "HEAD:refs/workbench/channels/active", "refs/workbench"),
        ("true", "HEAD:refs/other/x", "refs/other/x"),
        ("git tag -a release/rust/v1.0.0 -m fake", "refs/tags/release/rust/v1.0.0", "manifest"),
    ],
)
def test_a_ref_that_may_not_move_is_refused_and_nothing_changes(
    shared_hub, prepare: str, refspec: str, says: str
) -> None:  # type: ignore[no-untyped-def]
    before = shared_hub.refs()
    subprocess.run(["sh", "-c", prepare], cwd=shared_hub.clone, check=True, capture_output=True, env=shared_hub.env)
    pushed = shared_hub.push(refspec)
    assert not pushed.accepted
    assert says in pushed.text
    assert {r: v for r, v in shared_hub.refs().items() if "workbench" not in r} == {
        r: v for r, v in before.items() if "workbench" not in r
    }


def test_a_dry_run_is_declined_with_its_plan(started) -> None:  # type: ignore[no-untyped-def]
    before = started.refs()
    started.commit("agent", agents__runner="x = 1\n")
    pushed = started.push("-o", "run.dry", "main")
    assert not pushed.accepted
    assert "nothing was changed" in pushed.text
    assert started.refs() == before


def test_a_change_of_agent_code_starts_the_micro_tier_once_and_the_push_waits_for_it(started) -> None:  # type: ignore[no-untyped-def]
    (started.clone / "agents").mkdir()
    (started.clone / "agents" / "runner.py").write_text("x = 1\n")
    started.commit("agent")
    pushed = started.push("-o", "run.wait=120", "main")
    assert pushed.accepted
    assert "tier micro" in pushed.text
    assert "succeeded" in pushed.text
    runs = [ref for ref in started.refs() if ref.startswith("refs/workbench/runs/")]
    assert len(runs) == 1


@pytest.mark.parametrize("role", ["policy", "worker"])
def test_killing_a_process_of_the_hub_loses_no_work(started, role: str) -> None:  # type: ignore[no-untyped-def]
    from workbench.app.hub_host import run_worker

    (started.clone / "agents").mkdir()
    (started.clone / "agents" / "runner.py").write_text("x = 1\n")
    started.commit("agent")
    assert started.push("main").accepted
    started.kill(role)
    started.kill("worker")

    def runs() -> list[str]:
        run_worker(started.path, idle_s=0.2)  # one that was just being started may hold the lock: then it does the work
        return [ref for ref in started.refs() if ref.startswith("refs/workbench/runs/")]

    started.until(runs)
    before = runs()
    assert len(before) == 1
    assert runs() == before


def test_without_a_policy_process_that_can_start_the_push_fails_closed(started, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Ten seconds in earnest; here hooks whose patience is a second."""
    client, hook = tmp_path / "client", started.path / "hooks" / "pre-receive"
    client.mkdir()
    text = Path(hook_client.__file__).read_text()
    assert "ANSWER_S = 10.0" in text
    (client / "hook_client.py").write_text(text.replace("ANSWER_S = 10.0", "ANSWER_S = 1.0"))
    hook.write_text(hook.read_text().replace(str(Path(hook_client.__file__).parent), str(client)))
    started.kill("policy")
    socket = Path(started.path) / "workbench" / "policy.sock"
    socket.unlink(missing_ok=True)
    socket.mkdir()
    before = started.source_refs()
    started.commit("second", README="two\n")
    try:
        pushed = started.push("main")
        assert not pushed.accepted
        assert hook_client.FAIL in pushed.text
        assert started.source_refs() == before
    finally:
        socket.rmdir()


_PIN = """
import os, signal, sys
from pathlib import Path
from workbench.domain.ledger import Action, RefMove
from workbench.store.git.refs import Updater
from workbench.store.git.repository import GitRepository
commits = []
def commit(updater, real=Updater.commit):
    commits.append(updater)
    if len(commits) == 2:  # the first moves the ledger, this one its refs
        os.kill(os.getpid(), signal.SIGKILL)
    real(updater)
Updater.commit = commit
with GitRepository(Path(sys.argv[1])) as repository:
    main, objects = repository.refs.get("refs/heads/main"), repository.objects
    tree = objects.add_tree(objects.commit(main).tree, {"pinned": b"1"})
    pin = objects.add_commit(tree, parents=[main], message="pin", who="a", time_ms=2)
    moves = [RefMove.named("refs/heads/main", main, pin), RefMove.named("refs/workbench/channels/active", new=pin)]
    repository.ledger.change(Action.PIN, moves, who="a", why="pin")
"""


def test_a_push_onto_a_pin_that_was_killed_at_its_commit_point_is_told_to_fetch_it(started) -> None:  # type: ignore[no-untyped-def]
    before = started.source_refs()["refs/heads/main"]
    assert subprocess.run([sys.executable, "-c", _PIN, str(started.path)]).returncode == -signal.SIGKILL
    assert started.source_refs()["refs/heads/main"] == before  # recorded in the ledger, and not moved
    started.commit("second", README="two\n")
    pushed = started.push("-o", "ci.skip", "main")  # to the policy process that is there since the first push
    assert not pushed.accepted
    assert "fetch" in pushed.text
    refs = started.refs()
    assert refs["refs/heads/main"] == refs["refs/workbench/channels/active"] != before
    started.git("pull", "-q", "--rebase", "hub", "main")
    assert started.push("-o", "ci.skip", "main").accepted
    assert started.git("show", "main:pinned") == "1"


def test_a_pusher_that_goes_away_does_not_take_the_run_along(started) -> None:  # type: ignore[no-untyped-def]
    from workbench.app.hub_host import run_worker
    from workbench.app.wiring import open_repository
    from workbench.domain.run import State
    from workbench.hub.runs import show_run

    (started.clone / "agents").mkdir()
    (started.clone / "agents" / "runner.py").write_text("x = 2\n")
    tip = started.commit("agent")
    command = ["git", "-C", str(started.clone), "push", "-o", "run.wait=120", "hub", "main"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if b"follow" in line or b"run " in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert started.source_refs()["refs/heads/main"] == tip

    def ended() -> bool:
        run_worker(started.path, idle_s=0.2)  # the one that the push started may hold the lock: then it does the work
        repository = open_repository(started.path)
        return [show_run(repository, run).state for run in repository.runs.list()] == [State.SUCCEEDED]

    started.until(ended)
