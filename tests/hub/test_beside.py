"""What moved beside the ledger is judged by the same rules and recorded; what breaks them is told, and never run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.app import doctor
from workbench.app.hub_host import run_worker
from workbench.app.wiring import open_repository
from workbench.domain.ids import make_ulid
from workbench.domain.ledger import Action, RefMove
from workbench.domain.run import State
from workbench.hub import beside, runs
from workbench.hub.queue import fold

Files = Callable[..., dict[str, str]]


def fetched(hub: Any, *refspecs: str) -> None:
    """As a person fetches into a hub: no hook runs."""
    hub.git("fetch", "-q", "--no-tags", str(hub.clone), *refspecs, folder=hub.path)


def moved(hub: Any, ref: str, *values: str) -> None:
    hub.git("update-ref", ref, *values, folder=hub.path)


def last_push(desk: Any) -> Any:
    return next(entry for entry in desk.repository.ledger.history(99) if entry.action == "push")


def strays(desk: Any) -> dict[str, str]:
    return {str(stray.move.ref): stray.why for stray in beside.look(desk.host)}


def test_a_fetch_into_the_hub_is_recorded_and_run_as_one_push(desk: Any, toy_files: Files) -> None:
    hub = desk.under_test
    tip = hub.edit({**toy_files(), "agents/a.py": "x = 1\n"})
    hub.tag("v1.0.0")
    fetched(hub, "main:main", "refs/tags/v1.0.0:refs/tags/v1.0.0")
    assert desk.work() == 1
    [record] = desk.runs()
    assert record.state is State.SUCCEEDED
    assert [step.stage for step in record.steps] == ["tier full", "pipeline toy"]
    entry = last_push(desk)
    assert entry.who.startswith("found beside the ledger")
    assert entry.evidence["found"][0] == ["refs/heads/main", "0" * 40, tip]
    assert desk.work() == 0
    assert strays(desk) == {}


def test_one_that_breaks_a_rule_does_not_keep_the_others_from_being_recorded(desk: Any) -> None:
    hub = desk.under_test
    hub.edit({"agents/a.py": "x = 1\n"})
    hub.git("tag", "v1.0.0")  # not annotated
    fetched(hub, "main:main", "refs/tags/v1.0.0:refs/tags/v1.0.0")
    assert desk.work() == 1
    assert strays(desk) == {"refs/tags/v1.0.0": "tag v1.0.0 is not annotated"}
    assert [record.subject for record in desk.runs()] == ["micro"]


@pytest.mark.parametrize("ref", ["refs/heads/a..b", "refs/tags/light", "refs/tags/v1", "refs/workbench/channels/live"])
def test_what_breaks_a_rule_is_told_with_the_command_that_mends_it(desk: Any, ref: str) -> None:
    hub = desk.under_test
    tip = hub.edit({"README": "one\n"})
    assert hub.push("main").accepted
    if ".." in ref:  # git itself does not make it
        (hub.path / ref).write_text(f"{tip}\n")
        assert strays(desk) == {}, "nor does it read it"
        return
    moved(hub, ref, tip)
    assert desk.work() == 0
    assert list(strays(desk)) == [ref]
    [finding] = found_by_doctor(desk, ref)
    assert (finding.severity, finding.fix) == ("warning", f"git --git-dir={hub.path} update-ref -d {ref}")
    hub.git(*finding.fix.split()[1:], folder=hub.path)
    assert strays(desk) == {}


def test_a_main_that_was_put_back_is_told_and_a_push_onto_it_goes_on(desk: Any) -> None:
    hub = desk.under_test
    first = hub.edit({"README": "one\n"})
    assert hub.push("main").accepted
    second = hub.edit({"agents/a.py": "x = 1\n"})
    hub.git("push", "-q", "hub", "main")
    desk.work()
    moved(hub, "refs/heads/main", first, second)
    assert "would lose commits" in strays(desk)["refs/heads/main"]
    assert doctor_fix(desk, "refs/heads/main") == f"git --git-dir={hub.path} update-ref refs/heads/main {second}"
    hub.git("reset", "-q", "--hard", first)
    hub.edit({"README": "three\n"})
    assert hub.push("main").accepted
    assert desk.work() == 0
    assert strays(desk) == {}
    assert "would lose commits" in last_push(desk).evidence["error"], "it is recorded that it happened, and nothing ran"


def found_by_doctor(desk: Any, ref: str) -> list[Any]:
    findings = doctor.examine(desk.repository, quick=True)
    return [each for each in findings if each.what.startswith(f"{ref} moved beside the ledger")]


def doctor_fix(desk: Any, ref: str) -> str:
    return found_by_doctor(desk, ref)[0].fix


def test_a_move_that_a_push_came_after_is_recorded_and_run_too(desk: Any) -> None:
    hub = desk.under_test
    hub.edit({"README": "one\n"})
    assert hub.push("main").accepted
    beside_tip = hub.edit({"agents/a.py": "x = 1\n"})
    fetched(hub, "main:main")
    hub.edit({"README": "two\n"})
    assert "nothing to run" in hub.push("main").text
    assert desk.work() == 1
    assert [record.source for record in desk.runs()] == [beside_tip]
    assert desk.work() == 0


def test_the_history_that_came_beside_us_is_judged_and_not_its_tip_alone(desk: Any, objects: Any) -> None:
    hub = desk.under_test
    hub.edit({"README": "one\n"})
    assert hub.push("main").accepted
    hub.git("checkout", "-q", "-b", "topic")
    hub.edit({"con.txt": "a name that some machines cannot have\n"})
    hub.git("rm", "-q", "con.txt")
    hub.edit({"README": "gone again\n"})
    fetched(hub, "topic:topic")
    desk.work()
    assert "con.txt" in strays(desk)["refs/heads/topic"]


def test_a_branch_that_the_owner_deletes_in_the_hub_is_gone_and_nobody_complains(desk: Any) -> None:
    hub = desk.under_test
    hub.edit({"README": "one\n"})
    assert hub.push("main", "main:refs/heads/topic").accepted
    moved(hub, "-d", "refs/heads/topic")
    desk.work()
    assert strays(desk) == {}
    assert "refs/heads/topic" not in fold(desk.repository).stands


def test_the_policy_process_finds_it_when_it_starts_and_has_it_run(hub: Any) -> None:
    hub.edit({"agents/a.py": "x = 1\n"})
    fetched(hub, "main:main")
    hub.edit({"README": "one\n"})
    assert hub.push("main:refs/heads/topic").accepted

    def runs() -> list[str]:
        return [ref for ref in hub.refs() if ref.startswith("refs/workbench/runs/")]

    hub.until(runs)
    hub.settle()
    assert len(runs()) == 1


def test_a_second_worker_has_the_first_one_look(hub: Any) -> None:
    """``workbench worker``, as doctor advises, while a worker waits for the next push."""
    hub.edit({"state/a.json": "{}\n"})
    assert hub.push("main").accepted
    hub.settle()
    worker = hub.process("worker")
    fetched(hub, "main:refs/heads/topic")
    run_worker(hub.path, idle_s=0)
    with open_repository(hub.path) as repository:
        hub.until(lambda: [str(m.ref) for m in repository.ledger.history(1)[0].moves] == ["refs/heads/topic"])
    assert hub.process("worker") == worker


def test_the_index_is_rebuilt_when_it_is_gone_or_garbage(desk: Any) -> None:
    hub = desk.under_test
    for number in range(3):
        hub.edit({"agents/a.py": f"x = {number}\n"})
        desk.told(hub.push("main"))
    before = fold(desk.repository)
    path = desk.host.layout.fold
    for data in (b"", b"{", b"[" * 100_000, b'{"format": 1}', b'{"format": 99}', b"\xff", None):
        path.unlink()
        if data is not None:
            path.write_bytes(data)
        assert fold(desk.repository) == before
    assert len(before.waiting) == 3


@pytest.mark.parametrize(
    "evidence",
    [
        {"pusher": "a", "run": 5},
        {"pusher": "a", "run": "x"},
        {"pusher": "a", "run": make_ulid(1, bytes(10)), "options": []},
        {"pusher": "a", "run": make_ulid(1, bytes(10)), "options": {"variables": 5}},
        {"pusher": "a", "found": [[1]]},
        {"pusher": "a", "found": 5},
        {"stands": [], "upto": "x"},
    ],
)
def test_evidence_that_no_workbench_writes_is_passed_over(desk: Any, evidence: dict[str, Any]) -> None:
    """A person may look at the runs of a ledger that was fetched from anywhere."""
    desk.under_test.edit({"agents/a.py": "x = 1\n"})
    run = desk.told(desk.under_test.push("main"))
    for action in (Action.PUSH, Action.HANDLED):
        desk.repository.ledger.change(action, (), who="w <w@x>", why="", evidence=evidence)
    assert [record.id for record in runs.list_runs(desk.repository)] == [run]


# --- a hub that is older than that ------------------------------------------------------------------------------------


def as_it_was(desk: Any, handled: dict[str, str]) -> None:
    """The ledger of an older workbench: a push of one ref had no entry; HANDLED entries named refs."""
    desk.repository.ledger.change(Action.HANDLED, (), who="w <w@x>", why="nothing to run", evidence={"refs": handled})


def intent(desk: Any, number: int, moves: list[tuple[str, str, str]], **options: Any) -> str:
    run = make_ulid(number, bytes(10))
    folder = desk.host.layout.folder / "pushes"
    folder.mkdir(exist_ok=True)
    raw = {"format": 1, "run": run, "moves": moves, "options": options, "pusher": "alice", "time_ms": 1, "lines": []}
    (folder / f"{run}.json").write_text(json.dumps(raw))
    return run


def test_an_older_hub_goes_on_where_it_stands(desk: Any) -> None:
    hub = desk.under_test
    first = hub.edit({"agents/a.py": "x = 1\n"})
    fetched(hub, "main:main", "main:refs/heads/topic")
    as_it_was(desk, {"refs/heads/main": first})
    assert desk.work() == 0, "all of it was dealt with"
    assert strays(desk) == {}
    hub.edit({"agents/a.py": "x = 2\n"})
    desk.told(hub.push("main"))
    assert desk.work() == 1


def test_what_waited_in_an_older_hub_is_run_as_its_authors_were_told(desk: Any) -> None:
    hub = desk.under_test
    one, two, three = (hub.edit({"agents/a.py": f"x = {number}\n"}) for number in range(3))
    fetched(hub, "main:main")
    as_it_was(desk, {"refs/heads/main": one})
    never = hub.git("commit-tree", "-m", "never pushed", f"{three}^{{tree}}")
    intent(desk, 1, [("refs/heads/main", "0" * 40, one)])
    told = [
        intent(desk, 2, [("refs/heads/main", one, two)], tier="fast"),
        intent(desk, 3, [("refs/heads/main", two, three)]),
    ]
    intent(desk, 4, [("refs/heads/main", three, never)])
    assert desk.work() == 2
    assert [(record.id, record.subject, record.source) for record in desk.runs()] == [
        (told[0], "fast", two),
        (told[1], "micro", three),
    ]
    assert not (desk.host.layout.folder / "pushes").exists()
    assert desk.work() == 0


def test_what_waited_in_an_older_hub_is_run_also_where_entries_moved_its_refs_since(desk: Any) -> None:
    """There a push of several refs was an entry, and still to be run; a pin moved a main onto which pushes waited."""
    hub, ledger = desk.under_test, desk.repository.ledger
    one, two, three, pinned = (hub.edit({"agents/a.py": f"x = {number}\n"}) for number in range(4))
    fetched(hub, "main:main")
    moved(hub, "refs/heads/main", two)
    as_it_was(desk, {"refs/heads/main": one})
    moves = [("refs/heads/main", two, three), ("refs/heads/side", "0" * 40, three)]
    ledger.change(Action.PUSH, [RefMove.named(*move) for move in moves], who="u <u@x>", why="push")
    ledger.change(Action.PIN, [RefMove.named("refs/heads/main", three, pinned)], who="u <u@x>", why="pin")
    told = [intent(desk, 1, [("refs/heads/main", one, two)], tier="fast"), intent(desk, 2, moves)]
    assert desk.work() == 2
    assert [(record.id, record.source) for record in desk.runs()] == [(told[0], two), (told[1], three)]
    assert strays(desk) == {}


def test_what_waited_in_an_older_hub_and_was_not_described_is_found(desk: Any) -> None:
    hub = desk.under_test
    first = hub.edit({"README": "one\n"})
    fetched(hub, "main:main")
    as_it_was(desk, {"refs/heads/main": first})
    tip = hub.edit({"agents/a.py": "x = 1\n"})
    fetched(hub, "main:main")
    (desk.host.layout.folder / "pushes").mkdir()
    (desk.host.layout.folder / "pushes" / f"{make_ulid(1, bytes(10))}.json").write_text("{")
    assert desk.work() == 1
    assert [record.source for record in desk.runs()] == [tip]


def test_a_policy_process_records_where_an_older_hub_stands_before_it_takes_a_push(hub: Any, tmp_path: Path) -> None:
    first = hub.edit({"agents/a.py": "x = 1\n"})
    fetched(hub, "main:main", "main:refs/heads/old")
    with open_repository(hub.path) as repository:
        evidence = {"refs": {"refs/heads/main": first}}
        repository.ledger.change(Action.HANDLED, (), who="w <w@x>", why="", evidence=evidence)
        hub.edit({"agents/a.py": "x = 2\n"})
        assert "succeeded" in hub.push("-o", "run.wait=60", "main").text
        hub.settle()
        assert [entry.action.value for entry in reversed(repository.ledger.history(9))] == [
            "handled",
            "handled",
            "push",
            "handled",
        ]
        assert len(repository.runs.list()) == 1
