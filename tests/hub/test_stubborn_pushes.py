"""What is pushed is run, or its run says why not: walked by hand meanwhile, wrong, met by a bug, derived by another
release of the workbench."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from workbench.app import pipelines
from workbench.app.hub_host import open_hub
from workbench.app.wiring import open_repository
from workbench.domain.ids import Ulid, make_ulid
from workbench.domain.manifest import Manifest
from workbench.domain.refs import Kind
from workbench.domain.run import FINAL, RunRecord, State
from workbench.domain.version import Bump
from workbench.hub import runs
from workbench.hub.push_run import PushRun
from workbench.hub.worker import MAX_TRIES, Worker, work
from workbench.pipeline import watch
from workbench.pipeline.records import RECORD, RunFolder, Walked
from workbench.pipeline.walk import Walk
from workbench.store.git.doctor import has_bitmap
from workbench.store.git.maintenance import DUE_PACKS, is_due

Files = Callable[..., dict[str, str]]
CANARY = "refs/workbench/channels/canary"


# --- a run that someone walks by hand ---------------------------------------------------------------------------------


def walked_by_hand(desk: Any, run: Ulid, gate: Path) -> threading.Thread:
    """`workbench run --resume RUN` in the hub, as far as the gate."""

    def walk() -> None:
        with open_repository(desk.under_test.path) as repository:
            pipelines.resume(repository, run, who="Bob <bob@localhost>", workers=1, watcher=watch.Silent())

    reached = gate.with_name(gate.name + ".reached")
    reached.unlink()
    thread = threading.Thread(target=walk)
    thread.start()
    desk.under_test.until(reached.exists)
    return thread


def test_the_worker_waits_for_a_run_that_is_walked_by_hand_and_goes_on_from_its_end(
    desk: Any, toy_files: Files, gates: Path
) -> None:
    gate = gates / "gate"
    tip = desk.under_test.edit(toy_files(f"wait for {gate}"))
    run = desk.told(desk.under_test.push("-o", "promote=canary", "main"))
    desk.killed_in_the_middle(gate)
    by_hand = walked_by_hand(desk, run, gate)
    worker = desk.worker()
    looks = threading.Thread(target=lambda: [worker.handle_all() for _ in range(MAX_TRIES + 1)])
    looks.start()
    looks.join(1.0)
    assert looks.is_alive(), "however often it would look, it does not give up"
    assert len(desk.waiting()) == 1
    gate.touch()
    by_hand.join()
    looks.join()
    assert [(record.id, record.state) for record in desk.runs()] == [(run, State.SUCCEEDED)]
    assert desk.repository.refs.get(CANARY) == tip, "what was asked for is done"
    assert desk.repository.ledger.head().evidence["state"] == "succeeded"
    assert desk.waiting() == []


def test_work_that_is_walked_by_hand_does_not_cost_the_other_work_of_its_push(
    desk: Any, toy_files: Files, gates: Path
) -> None:
    gate = gates / "gate"
    desk.under_test.edit({**toy_files(f"wait for {gate}"), "agents/a.py": "x = 1\n"})
    run = desk.told(desk.under_test.push("main"))
    desk.killed_in_the_middle(gate)
    piece = Ulid(runs.show_run(desk.repository, run).options["runs"]["pipeline toy"])
    by_hand = walked_by_hand(desk, piece, gate)
    looks = threading.Thread(target=desk.work)
    looks.start()
    looks.join(1.0)
    gate.touch()
    by_hand.join()
    looks.join()
    record = runs.show_run(desk.repository, run)
    assert record.state is State.SUCCEEDED
    assert {step.state for step in record.steps} == {State.SUCCEEDED}
    assert desk.artifacts() == ["raw/toy/v1.0.0", "release/toy/v1.0.0"]


def begun_here(record: RunRecord, step: str) -> bool:
    return record.pid == os.getpid() and record.step(step).state is State.RUNNING


def test_cancelling_the_push_ends_work_that_is_walked_by_hand(desk: Any, toy_files: Files, gates: Path) -> None:
    gate = gates / "gate"
    desk.under_test.edit({**toy_files(f"wait for {gate}"), "agents/a.py": "x = 1\n"})
    run = desk.told(desk.under_test.push("main"))
    desk.killed_in_the_middle(gate)
    piece = Ulid(runs.show_run(desk.repository, run).options["runs"]["pipeline toy"])
    by_hand = walked_by_hand(desk, piece, gate)
    looks = threading.Thread(target=desk.work)
    looks.start()
    desk.under_test.until(lambda: begun_here(runs.show_run(desk.repository, run), "pipeline toy"))
    desk.cancel(run)
    by_hand.join()
    looks.join()
    assert runs.show_run(desk.repository, run).state is State.CANCELLED
    assert runs.show_run(desk.repository, piece).state is State.CANCELLED
    assert desk.artifacts() == []


def test_a_cancel_that_the_walker_did_not_live_to_see_is_not_forgotten(
    desk: Any, toy_files: Files, gates: Path
) -> None:
    desk.under_test.edit(toy_files(f"wait for {gates}/gate"))
    run = desk.told(desk.under_test.push("main"))
    desk.killed_in_the_middle(gates / "gate")
    RunFolder.of(desk.repository, run).ask_to_stop()  # as `runs cancel` did while it lived
    (gates / "gate").touch()
    desk.work()
    assert [record.state for record in desk.runs()] == [State.CANCELLED]
    assert desk.artifacts() == []
    assert desk.waiting() == []


def test_a_run_that_is_cancelled_while_it_is_planned_does_not_begin(
    toy_desk: Any, toy_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, to_cancel = PushRun._read, []

    def first_look(self: PushRun, run: Ulid) -> RunRecord | None:
        found = read(self, run)
        if run in to_cancel:
            to_cancel.remove(run)
            toy_desk.cancel(run)
        return found

    monkeypatch.setattr(PushRun, "_read", first_look)
    for files in (toy_files("new"), {"agents/a.py": "x = 1\n"}, {**toy_files("newer"), "agents/a.py": "x = 2\n"}):
        toy_desk.under_test.edit(files)
        run = toy_desk.told(toy_desk.under_test.push("main"))
        to_cancel.append(run)
        assert toy_desk.work() == 1
        assert runs.show_run(toy_desk.repository, run).state is State.CANCELLED
    assert toy_desk.artifacts() == ["raw/toy/v1.0.0", "release/toy/v1.0.0"]


def test_who_holds_a_run_holds_it_alone_though_others_clear_its_folder(desk: Any) -> None:
    """Where each clears what it believes dead, two may come to hold a lock of one name."""
    folder = RunFolder.of(desk.repository, make_ulid(1, bytes(10)))
    inside: list[int] = []
    most: list[int] = []

    def hold(number: int) -> None:
        for _ in range(200):
            try:
                with folder.held():
                    inside.append(number)
                    most.append(len(inside))
                    folder.clear()
                    inside.remove(number)
            except Walked:
                continue

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}


# --- work that cannot be begun ----------------------------------------------------------------------------------------


def test_a_bug_with_one_push_is_told_by_its_run_and_stops_none_that_come_after_it(
    toy_desk: Any, toy_files: Files
) -> None:
    hub = toy_desk.under_test
    hub.edit(toy_files("one"))
    first = toy_desk.told(hub.push("main"))
    hub.edit(toy_files("two"))
    second = toy_desk.told(hub.push("main"))
    worker = toy_desk.worker()
    derive = worker._work

    def fails(push: Any, options: Any) -> Any:
        if push.evidence["run"] == first:
            raise KeyError("a bug of ours")
        return derive(push, options)

    worker._work = fails
    for _ in range(MAX_TRIES - 1):
        assert worker.handle_all() == 0
        assert len(toy_desk.waiting()) == 2
    assert worker.handle_all() == 2
    states = {record.id: record for record in toy_desk.runs()}
    assert states[first].state is State.FAILED
    assert "a bug of ours" in states[first].error
    assert states[second].state is State.SUCCEEDED


def test_a_bug_inside_a_piece_ends_its_run_with_that_of_the_push(
    desk: Any, toy_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tier has ended and the pipeline has begun when it happens."""

    def fails(*_: Any) -> None:
        raise KeyError("a bug of ours")

    monkeypatch.setattr(Walk, "_execute", fails)
    desk.under_test.edit({**toy_files(), "agents/a.py": "x = 1\n"})
    run = desk.told(desk.under_test.push("main"))
    worker = desk.worker()
    assert [worker.handle_all() for _ in range(MAX_TRIES)][-1] == 1
    record = runs.show_run(desk.repository, run)
    pieces = {label: runs.show_run(desk.repository, Ulid(piece)) for label, piece in record.options["runs"].items()}
    assert record.state is State.FAILED
    assert {label: piece.state for label, piece in pieces.items()} == {
        "tier micro": State.SUCCEEDED,
        "pipeline toy": State.FAILED,
    }
    assert "a bug of ours" in pieces["pipeline toy"].error
    assert {step.state for step in pieces["pipeline toy"].steps} <= FINAL | {State.ABANDONED}


def garbage_for_a_record(desk: Any, run: Ulid) -> None:
    desk.repository.runs.write(run, {RECORD: b'{"format": 2}\n'})


def test_a_run_that_cannot_even_say_that_it_failed_stops_none_that_come_after_it(desk: Any, toy_files: Files) -> None:
    hub = desk.under_test
    hub.edit(toy_files("one"))
    garbage_for_a_record(desk, desk.told(hub.push("main")))
    hub.edit(toy_files("two"))
    second = desk.told(hub.push("main"))
    worker = desk.worker()
    assert [worker.handle_all() for _ in range(MAX_TRIES)] == [0] * (MAX_TRIES - 1) + [2]
    assert runs.show_run(desk.repository, second).state is State.SUCCEEDED
    entries = [entry for entry in desk.repository.ledger.history(9) if "error" in entry.evidence]
    assert [entry.why[:9] for entry in entries] == ["given up:"]
    assert desk.waiting() == []


def test_a_promotion_that_is_never_won_leaves_the_run_as_it_ended_and_says_so(toy_desk: Any, toy_files: Files) -> None:
    toy_desk.under_test.edit(toy_files("new"))
    run = toy_desk.told(toy_desk.under_test.push("-o", "promote=canary", "main"))
    worker = toy_desk.worker()

    def lose(*_: Any) -> None:
        raise OSError("the disk is full")

    worker._promote = lose
    for _ in range(MAX_TRIES):
        worker.handle_all()
    assert runs.show_run(toy_desk.repository, run).state is State.SUCCEEDED
    entry = toy_desk.repository.ledger.head()
    assert entry.why == f"run {run} succeeded, given up: the disk is full"
    assert entry.evidence["error"] == "the disk is full"


# --- records that another release of the workbench began --------------------------------------------------------------


def test_a_push_whose_work_was_called_otherwise_is_taken_up(desk: Any, toy_files: Files, gates: Path) -> None:
    gate = gates / "gate"
    desk.under_test.edit({**toy_files(f"wait for {gate}"), "agents/a.py": "x = 1\n"})
    run = desk.told(desk.under_test.push("main"))
    desk.killed_in_the_middle(gate)
    record = runs.show_run(desk.repository, run)
    pipeline = record.options["runs"]["pipeline toy"]
    save(
        desk,
        replace(
            record,
            state=State.RUNNING,
            steps=tuple(replace(step, stage=step.stage.replace("tier micro", "tests")) for step in record.steps),
            options={"runs": {"tests": record.options["runs"]["tier micro"], "pipeline toy": pipeline}},
        ),
    )
    gate.touch()
    assert desk.work() == 1
    after = runs.show_run(desk.repository, run)
    assert after.state is State.SUCCEEDED
    assert [step.stage for step in after.steps] == ["tier micro", "pipeline toy"]


def test_one_piece_that_has_become_several_and_several_that_have_become_one_are_taken_up(
    desk: Any, toy_files: Files
) -> None:
    hub = desk.under_test
    hub.edit({**toy_files(), "agents/a.py": "x = 1\n"})
    grown = desk.told(hub.push("main"))
    save(desk, RunRecord(grown, "tier", "micro", "", "push", state=State.ABANDONED))
    hub.edit(toy_files("two"))
    shrunk = desk.told(hub.push("main"))
    save(desk, RunRecord(shrunk, "push", "two of them", "", "push", state=State.ABANDONED))
    assert desk.work() == 2
    for run in (grown, shrunk):
        record = runs.show_run(desk.repository, run)
        assert (record.kind, record.state) == ("push", State.SUCCEEDED)


def save(desk: Any, record: RunRecord) -> None:
    desk.repository.runs.write(record.id, {RECORD: record.to_bytes()})


# --- several versions in one push -------------------------------------------------------------------------------------


def test_each_version_of_a_push_is_tested_in_full(desk: Any) -> None:
    """More than three tags at once start nothing elsewhere; here each commit that gets a version gets its tier."""
    hub = desk.under_test
    commits = []
    for number in range(4):
        commits.append(hub.edit({"agents/a.py": f"x = {number}\n"}))
        hub.tag(f"v1.{number}.0")
    hub.tag("v1.4.0")
    names = [f"v1.{number}.0" for number in range(5)]
    pushed = hub.push("main", *names)
    run = desk.told(pushed)
    assert "tier full of v1.0.0: version v1.0.0 was pushed" in pushed.text
    assert "tier full of v1.4.0: versions v1.3.0, v1.4.0 were pushed" in pushed.text
    desk.work()
    record = runs.show_run(desk.repository, run)
    assert record.state is State.SUCCEEDED
    inner = [runs.show_run(desk.repository, Ulid(each)) for each in record.options["runs"].values()]
    assert sorted(each.source for each in inner) == sorted(commits)
    assert {each.subject for each in inner} == {"full"}


def test_a_channel_does_not_move_when_one_version_of_the_push_fails_its_tier(desk: Any) -> None:
    hub = desk.under_test
    for number, text in enumerate(("def (", "x = 1")):
        hub.edit({"agents/a.py": f"{text}\n"})
        hub.tag(f"v1.{number}.0")
    run = desk.told(hub.push("-o", "promote=canary", "main", "v1.0.0", "v1.1.0"))
    desk.work()
    record = runs.show_run(desk.repository, run)
    assert record.state is State.FAILED
    assert {step.stage: step.state for step in record.steps} == {
        "tier full of v1.0.0": State.FAILED,
        "tier full of v1.1.0": State.SUCCEEDED,
    }
    assert desk.repository.refs.get(CANARY) is None


# --- a worker with nothing to do --------------------------------------------------------------------------------------


def test_an_idle_worker_keeps_the_bitmaps_written_once_much_has_come_in(hub: Any, tmp_path: Path) -> None:
    payload = tmp_path / "payload"
    payload.mkdir()

    def publish(number: int) -> None:
        (payload / "file").write_text(f"{number}\n")
        staged = repository.artifacts.stage(payload, Manifest(Kind.RAW, "books", stage="test"))
        repository.artifacts.publish(staged, bump=Bump.PATCH, who="Ann", why="a test")

    with open_repository(hub.path) as repository:
        publish(0)
        work(open_hub(repository), idle_s=0.05)
        assert not has_bitmap(hub.path), "little has come in"
        for number in range(1, DUE_PACKS):
            publish(number)
        work(open_hub(repository), idle_s=0.05)
        assert has_bitmap(hub.path)
        assert not is_due(hub.path)
        assert len(repository.artifacts.list()) == DUE_PACKS
    hub.git("fsck", "--strict", folder=hub.path)


# --- a clock that was wrong -------------------------------------------------------------------------------------------


def test_the_newest_run_is_the_newest_though_the_clock_went_back_by_years(desk: Any, toy_files: Files) -> None:
    future = make_ulid(4_000_000_000_000, bytes(10))
    save(desk, RunRecord(future, "tier", "micro", "", "test", state=State.SUCCEEDED))
    told = []
    for text in ("one", "two"):
        desk.under_test.edit({**toy_files(text), "agents/a.py": f"x = '{text}'\n"})
        told.append(desk.told(desk.under_test.push("main")))
    assert future < told[0] < told[1]
    with open_repository(desk.under_test.path) as repository:
        assert work(open_hub(repository), idle_s=0.1) == 0, "the test has the worker's place"
        worker = Worker(open_hub(repository))
        assert worker.handle_all() == 2
        inner = [Ulid(run) for each in told for run in runs.show_run(repository, each).options["runs"].values()]
        assert min(inner) > future
        assert runs.forget_old(repository, keep=6) == [future]
        assert {record.id for record in runs.list_runs(repository)} == {*told, *inner}
        assert all(record.created_ms < 4_000_000_000_000 for record in runs.list_runs(repository))
