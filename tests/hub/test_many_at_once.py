"""Judging holds no lock: nobody waits for another's push. A plan that takes long is finished by the worker."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from workbench.domain.run import State
from workbench.hub import runs

Files = Callable[..., dict[str, str]]
POLICY = """
import sys, time
from pathlib import Path
from workbench.app import hub_host
from workbench.hub import planning, policy_server
gate = Path(sys.argv[2])
def wait():
    gate.with_name("reached").touch()
    while not gate.exists():
        time.sleep(0.01)
judge, derive, plan = policy_server.judge, planning.Derivation.work, planning.Derivation.plan
def slow_judge(push, *rest):
    judged = judge(push, *rest)
    if any(str(move.ref) == "refs/heads/slow" for move in push.moves):
        wait()
    return judged
def slow(real):
    def slowly(*arguments):
        wait()
        return real(*arguments)
    return slowly
if sys.argv[3] == "judge": policy_server.judge = slow_judge
if sys.argv[3] == "work": planning.Derivation.work = slow(derive)
if sys.argv[3] == "plan": planning.Derivation.plan = slow(plan)
hub_host.main(["policy", sys.argv[1]])
"""


@contextmanager
def slow_policy(hub: Any, gate: Path, what: str) -> Iterator[None]:
    (hub.path / "workbench/policy.sock").unlink(missing_ok=True)
    with open(gate.with_name("policy.log"), "wb") as log:
        policy = subprocess.Popen([sys.executable, "-P", "-c", POLICY, hub.path, gate, what], stderr=log)
    try:
        hub.until((hub.path / "workbench/policy.sock").exists)
        yield
    finally:
        policy.kill()
        policy.wait()


def test_pushes_go_through_while_another_is_judged_for_long(desk: Any, tmp_path: Path) -> None:
    hub, gate = desk.under_test, tmp_path / "gate"
    with slow_policy(hub, gate, "judge"):
        hub.edit({"README": "one\n"})
        said: list[Any] = []
        slow = threading.Thread(target=lambda: said.append(hub.push("main:refs/heads/slow")))
        slow.start()
        hub.until((tmp_path / "reached").exists)
        for number in range(5):
            hub.edit({"README": f"{number}\n"})
            hub.tag(f"v1.{number}.0")
            assert hub.push("main", f"v1.{number}.0").accepted
        assert slow.is_alive(), "it is judged still"
        gate.touch()
        slow.join()
        assert said[0].accepted, said[0].text
        assert "refs/heads/slow" in hub.refs()


def test_a_push_that_was_judged_while_what_it_rests_on_moved_is_judged_again(desk: Any, tmp_path: Path) -> None:
    """Two pushes of one version number at once, of which the slower one was judged first."""
    hub, gate = desk.under_test, tmp_path / "gate"
    hub.edit({"README": "one\n"})
    assert hub.push("main").accepted
    hub.kill("policy")
    with slow_policy(hub, gate, "judge"):
        hub.tag("v1.0.0")
        said: list[Any] = []
        slow = threading.Thread(target=lambda: said.append(hub.push("main:refs/heads/slow", "v1.0.0")))
        slow.start()
        hub.until((tmp_path / "reached").exists)
        hub.tag("v1.1.0")
        assert hub.push("v1.1.0").accepted
        gate.touch()
        slow.join()
        assert not said[0].accepted
        assert "v1.0.0 is not greater than v1.1.0" in said[0].text
        assert "refs/heads/slow" not in hub.refs()


@pytest.mark.parametrize(
    ("what", "says", "decided"),
    [
        ("plan", "pipeline toy: ci/pipelines/toy.toml changed the rest of the plan is made by the worker", True),
        ("work", "what this push starts is decided by the worker", False),
    ],
)
def test_what_a_hook_cannot_decide_in_two_seconds_the_worker_does(
    desk: Any, toy_files: Files, tmp_path: Path, what: str, says: str, decided: bool
) -> None:
    hub, gate = desk.under_test, tmp_path / "gate"
    hub.edit(toy_files())
    with slow_policy(hub, gate, what):
        pushed = hub.push("main")
        assert not gate.exists(), "its plan is not made yet"
    run = desk.told(pushed)
    assert says in " ".join(pushed.text.replace("remote: ", "").split())
    [push] = desk.waiting()
    assert ("work" in push.evidence) is decided
    assert runs.show_run(desk.repository, run).state is State.QUEUED
    assert desk.work() == 1
    assert runs.show_run(desk.repository, run).state is State.SUCCEEDED
    assert desk.artifacts() == ["raw/toy/v1.0.0", "release/toy/v1.0.0"]


def test_the_worker_may_decide_that_nothing_is_to_be_done(desk: Any, tmp_path: Path) -> None:
    hub = desk.under_test
    hub.edit({"README": "one\n"})
    with slow_policy(hub, tmp_path / "gate", "work"):
        run = desk.told(hub.push("main"))
    assert desk.work() == 1
    record = runs.show_run(desk.repository, run)
    assert (record.state, record.steps) == (State.SUCCEEDED, ())
