"""Pushes by real git while the worker is busy: each gets the run that its author was told of, one after the other."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.domain.run import State

Files = Callable[..., dict[str, str]]


def test_a_push_is_run_as_the_run_that_its_author_was_told(desk: Any, toy_files: Files) -> None:
    desk.under_test.edit(toy_files())
    run = desk.told(desk.under_test.push("main"))
    assert desk.work() == 1
    [record] = desk.runs()
    assert (record.id, record.state) == (run, State.SUCCEEDED)
    assert desk.artifacts() == ["raw/toy/v1.0.0", "release/toy/v1.0.0"]
    assert desk.work() == 0
    assert desk.waiting() == []


def test_pushes_that_come_meanwhile_queue_in_order_each_with_its_own_run(desk: Any, toy_files: Files) -> None:
    hub = desk.under_test
    told = []
    for text in ("one", "two", "three"):
        hub.edit(toy_files(text))
        told.append(desk.told(hub.push("main")))
        hub.edit({"README": f"about {text}\n"})
        assert "nothing to run" in hub.push("main").text
    assert [push.evidence["run"] for push in desk.waiting()] == told
    desk.work()
    assert [record.id for record in desk.runs()] == told
    assert {record.state for record in desk.runs()} == {State.SUCCEEDED}
    assert desk.artifacts()[:3] == ["raw/toy/v1.0.0", "raw/toy/v1.1.0", "raw/toy/v1.2.0"]
    assert desk.waiting() == []


def test_a_push_during_a_run_waits_for_its_end(desk: Any, toy_files: Files, gates: Path) -> None:
    hub, gate = desk.under_test, gates / "gate"
    hub.edit(toy_files(f"wait for {gate}"))
    first = desk.told(hub.push("main"))
    worker = threading.Thread(target=desk.work)
    worker.start()
    hub.until((gates / "gate.reached").exists)
    hub.edit(toy_files("after"))
    second = desk.told(hub.push("main"))
    assert [record.id for record in desk.runs()] == [first]
    gate.touch()
    worker.join()
    assert [record.id for record in desk.runs()] == [first]
    desk.work()
    assert [record.id for record in desk.runs()] == [first, second]


def test_a_push_of_several_refs_is_one_run_with_a_step_for_each_job(desk: Any, toy_files: Files) -> None:
    hub = desk.under_test
    hub.edit({**toy_files(), "agents/a.py": "x = 1\n"})
    hub.tag("v1.0.0")
    pushed = hub.push("main", "v1.0.0")
    run = desk.told(pushed)
    assert "tier full" in pushed.text
    assert "pipeline toy" in pushed.text
    assert desk.work() == 1
    [record] = desk.runs()
    assert (record.id, record.kind, record.state) == (run, "push", State.SUCCEEDED)
    assert {step.stage: step.state for step in record.steps} == {
        "tier full": State.SUCCEEDED,
        "pipeline toy": State.SUCCEEDED,
    }
    assert len(record.options["runs"]) == 2
    entry = next(entry for entry in desk.repository.ledger.history(9) if entry.action == "push")
    assert (entry.evidence["pusher"], entry.evidence["run"]) == ("owner", run)
    assert [work["kind"] for work in entry.evidence["work"]] == ["tier", "pipeline"]


def test_a_failed_job_fails_the_push_and_says_which(desk: Any, toy_files: Files) -> None:
    hub = desk.under_test
    hub.edit({**toy_files("fail"), "agents/a.py": "x = 1\n"})
    desk.told(hub.push("main"))
    desk.work()
    [record] = desk.runs()
    assert record.state is State.FAILED
    assert "pipeline toy" in record.error
    assert "asked to fail" in record.error
    assert desk.waiting() == [], "a failure is an end: it is not run again"


def test_what_is_accepted_during_a_long_run_keeps_its_run_and_its_options(
    toy_desk: Any, toy_files: Files, gates: Path
) -> None:
    hub, gate = toy_desk.under_test, gates / "gate"
    hub.edit(toy_files(f"wait for {gate}"))
    toy_desk.told(hub.push("main"))
    worker = threading.Thread(target=toy_desk.work)
    worker.start()
    hub.until((gates / "gate.reached").exists)
    hub.edit({"agents/a.py": "x = 2\n"})
    on_main = toy_desk.told(hub.push("-o", "ci.tier=fast", "-o", "promote=canary", "main"))
    hub.git("checkout", "-q", "-b", "topic")
    hub.edit({"agents/a.py": "x = 3\n"})
    on_topic = toy_desk.told(hub.push("-o", "ci.tier=fast", "topic"))
    gate.touch()
    worker.join()
    found = {push.evidence["run"]: push.evidence["options"] for push in toy_desk.waiting()}
    assert list(found) == [on_main, on_topic]
    assert (found[on_main]["promote"], found[on_topic]["tier"]) == ("canary", "fast")


def clone_of(hub: Any, name: str) -> Path:
    path = hub.clone.parent / name
    hub.git("clone", "-q", "-o", "hub", str(hub.path), str(path))
    return Path(path)


def test_two_pushes_that_race_end_as_git_says_and_lose_no_run(desk: Any, toy_files: Files) -> None:
    """The loser is told so by git or by the hub, fetches and pushes again, as people do."""
    hub = desk.under_test
    hub.edit(toy_files())
    first = desk.told(hub.push("main"))
    clones = [clone_of(hub, "left"), clone_of(hub, "right")]
    told: list[str] = [first]
    for number in range(4):
        starts = threading.Barrier(2)
        accepted: list[tuple[Path, str]] = []

        def push(
            clone: Path,
            number: int = number,
            starts: threading.Barrier = starts,
            accepted: list[tuple[Path, str]] = accepted,
        ) -> None:
            hub.git("pull", "-q", "--rebase", folder=clone)
            (clone / "agents").mkdir(exist_ok=True)
            (clone / "agents" / f"{clone.name}.py").write_text(f"x = {number}\n")
            hub.git("add", "-A", folder=clone)
            hub.git("commit", "-q", "-m", f"{clone.name} {number}", folder=clone)
            starts.wait()
            for _ in range(5):
                done = subprocess.run(
                    ["git", "-C", str(clone), "push", "hub", "main"], capture_output=True, text=True, env=hub.env
                )
                if done.returncode == 0:
                    told.append(done.stderr.partition("workbench: run ")[2][:26])
                    accepted.append((clone, hub.git("rev-parse", "HEAD", folder=clone)))
                    return
                assert any(word in done.stderr for word in ("fetch first", "would lose commits", "while you pushed")), (
                    done.stderr
                )
                hub.git("pull", "-q", "--rebase", folder=clone)

        threads = [threading.Thread(target=push, args=(clone,)) for clone in clones]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(accepted) == 2
        tip = hub.refs()["refs/heads/main"]
        assert tip in [commit for _, commit in accepted]
        for _, commit in accepted:
            hub.git("merge-base", "--is-ancestor", commit, tip, folder=hub.path)
    assert len(told) == len(set(told)) == 9
    assert all(len(run) == 26 for run in told)
    desk.work()
    assert sorted(record.id for record in desk.runs()) == sorted(told)
    assert desk.waiting() == []
