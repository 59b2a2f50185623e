"""Runs as people ask for them: cancelled, waiting and running; taken up after a kill; forgotten when they are old."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.domain.errors import Conflict, Corrupt, NotFound, UserError
from workbench.domain.ids import make_ulid
from workbench.domain.refs import Kind
from workbench.domain.run import RunRecord, State
from workbench.hub import runs
from workbench.pipeline import records, watch
from workbench.pipeline.records import RECORD, RunFolder
from workbench.store.memory.repository import CountingClock, MemoryRepository

Files = Callable[..., dict[str, str]]
SLOW_TIER = """
format = 1
[[micro]]
name = "slow"
run = ["sleep", "600"]
wall_s = 900
"""


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_a_waiting_run_that_is_cancelled_never_begins(toy_desk: Any, toy_files: Files) -> None:
    toy_desk.under_test.edit(toy_files("never"))
    run = toy_desk.told(toy_desk.under_test.push("main"))
    assert toy_desk.cancel(run).state is State.CANCELLED
    toy_desk.work()
    record = toy_desk.runs()[-1]
    assert (record.id, record.state, record.steps) == (run, State.CANCELLED, ())
    assert len(toy_desk.artifacts()) == 2
    assert toy_desk.waiting() == []
    with pytest.raises(Conflict, match="cancelled already"):
        toy_desk.cancel(run)


def test_what_the_steps_of_a_run_read_may_leave_the_cache_when_it_has_ended(toy_desk: Any, toy_files: Files) -> None:
    """The worker lives on for as long as pushes come."""
    toy_desk.under_test.edit(toy_files("words that no other test has"))
    toy_desk.told(toy_desk.under_test.push("main"))
    toy_desk.work()
    read = toy_desk.repository.artifacts.latest(Kind.RAW, "toy")
    folder = Path(os.environ["WORKBENCH_CACHE_DIR"]) / "folders" / toy_desk.repository.artifacts.get(read).tree
    assert folder.is_dir()
    toy_desk.repository.cache.trim(0)
    assert not folder.exists()


def test_cancelling_one_of_the_waiting_leaves_the_others(toy_desk: Any, toy_files: Files) -> None:
    told = []
    for text in ("one", "two", "three"):
        toy_desk.under_test.edit(toy_files(text))
        told.append(toy_desk.told(toy_desk.under_test.push("main")))
    toy_desk.cancel(told[1])
    toy_desk.work()
    states = {record.id: record.state for record in toy_desk.runs()}
    assert [states[run] for run in told] == [State.SUCCEEDED, State.CANCELLED, State.SUCCEEDED]


def working(desk: Any) -> threading.Thread:
    thread = threading.Thread(target=desk.work)
    thread.start()
    return thread


def test_a_running_stage_is_ended_when_its_run_is_cancelled(toy_desk: Any, toy_files: Files, gates: Path) -> None:
    toy_desk.under_test.edit(toy_files(f"wait for {gates}/gate"))
    run = toy_desk.told(toy_desk.under_test.push("main"))
    worker = working(toy_desk)
    toy_desk.under_test.until((gates / "gate.reached").exists)
    assert toy_desk.cancel(run).state is State.RUNNING, "it is asked to stop"
    worker.join()
    record = toy_desk.runs()[-1]
    assert record.state is State.CANCELLED
    assert {step.stage: step.state for step in record.steps} == {"words": State.CANCELLED, "count": State.SKIPPED}
    assert len(toy_desk.artifacts()) == 2
    assert not processes_that_mention(str(gates / "gate"))
    assert not RunFolder.of(toy_desk.repository, run).path.exists()


def test_a_running_command_of_a_tier_is_ended_when_its_run_is_cancelled(toy_desk: Any) -> None:
    toy_desk.under_test.edit({"agents/a.py": "x = 1\n", "ci/tiers.toml": SLOW_TIER})
    run = toy_desk.told(toy_desk.under_test.push("main"))
    worker = working(toy_desk)
    toy_desk.under_test.until(lambda: runs.show_run(toy_desk.repository, run).state is State.RUNNING)
    toy_desk.cancel(run)
    worker.join()
    assert toy_desk.runs()[-1].state is State.CANCELLED


def test_a_cancelled_run_of_several_jobs_ends_the_one_that_runs_and_skips_the_rest(
    toy_desk: Any, toy_files: Files
) -> None:
    toy_desk.under_test.edit({**toy_files("not reached"), "agents/a.py": "x = 1\n", "ci/tiers.toml": SLOW_TIER})
    run = toy_desk.told(toy_desk.under_test.push("main"))
    worker = working(toy_desk)
    toy_desk.under_test.until(lambda: toy_desk.running_jobs(run))
    toy_desk.cancel(run)
    worker.join()
    record = toy_desk.runs()[-1]
    assert record.state is State.CANCELLED
    assert [step.state for step in record.steps] == [State.CANCELLED, State.SKIPPED]
    assert len(toy_desk.artifacts()) == 2


def test_a_pusher_who_waits_is_told_that_the_run_was_cancelled(toy_desk: Any, toy_files: Files) -> None:
    toy_desk.under_test.edit(toy_files("never"))
    said: list[Any] = []
    pusher = threading.Thread(target=lambda: said.append(toy_desk.under_test.push("-o", "run.wait=60", "main")))
    pusher.start()
    toy_desk.under_test.until(toy_desk.waiting)
    toy_desk.cancel(toy_desk.waiting()[0].evidence["run"])
    pusher.join()
    assert said[0].accepted, "the push stands"
    assert "cancelled" in said[0].text


# --- a worker that is killed ------------------------------------------------------------------------------------------


def test_a_run_whose_worker_was_killed_is_resumed_by_the_next_one(hub: Any, toy_files: Files, gates: Path) -> None:
    """The pusher sees it through; what the dead worker had begun is ended and nothing is left of it."""
    gate = gates / "gate"
    hub.edit(toy_files(f"wait for {gate}"))
    said: list[Any] = []
    pusher = threading.Thread(target=lambda: said.append(hub.push("-o", "run.wait=120", "main")))
    pusher.start()
    hub.until((gates / "gate.reached").exists)
    killed = hub.process("worker")
    (gates / "gate.reached").unlink()
    os.kill(killed, signal.SIGKILL)
    hub.until((gates / "gate.reached").exists)
    assert hub.process("worker") != killed
    gate.touch()
    pusher.join()
    pushed = said[0]
    assert pushed.accepted
    assert "succeeded" in pushed.text
    shown = pushed.text.split("follow: workbench runs tail")[1]
    assert shown.count("words runs: never ran") in (1, 2), "as it was begun again, and before that if there was time"
    assert shown.count("release/toy/v1.0.0") == 1
    refs = [ref for ref in hub.refs() if ref.startswith("refs/workbench/runs/")]
    assert len(refs) == 1
    assert refs[0].rsplit("/", 1)[1] in pushed.text
    tags = [ref for ref in hub.refs() if ref.startswith("refs/tags/")]
    assert tags == ["refs/tags/raw/toy/v1.0.0", "refs/tags/release/toy/v1.0.0"]
    hub.settle()
    hub.kill("worker")  # an object that it adds while fsck looks can be seen before what it names
    assert "dangling" not in hub.git("fsck", "--strict", "--no-dangling", folder=hub.path)
    hub.until(lambda: not processes_that_mention(str(gate)))


def test_between_two_workers_a_killed_run_is_shown_as_abandoned(desk: Any, toy_files: Files, gates: Path) -> None:
    desk.under_test.edit(toy_files(f"wait for {gates}/gate"))
    run = desk.told(desk.under_test.push("main"))
    desk.killed_in_the_middle(gates / "gate")
    assert runs.show_run(desk.repository, run).state is State.ABANDONED
    assert [record.state for record in runs.list_runs(desk.repository)] == [State.ABANDONED]
    events = [type(event) for event in runs.tail_run(desk.repository, run)]
    assert watch.RunEnded not in events
    (gates / "gate").touch()
    desk.work()
    assert runs.show_run(desk.repository, run).state is State.SUCCEEDED


def test_an_abandoned_run_can_be_cancelled_and_is_not_taken_up_again(desk: Any, toy_files: Files, gates: Path) -> None:
    desk.under_test.edit(toy_files(f"wait for {gates}/gate"))
    run = desk.told(desk.under_test.push("main"))
    desk.killed_in_the_middle(gates / "gate")
    assert desk.cancel(run).state is State.CANCELLED
    assert not processes_that_mention(str(gates / "gate")), "what it left running is ended"
    desk.work()
    assert [record.state for record in desk.runs()] == [State.CANCELLED]
    assert desk.waiting() == []
    assert desk.artifacts() == []


def test_a_run_of_several_jobs_goes_on_where_its_worker_was_killed(desk: Any, toy_files: Files, gates: Path) -> None:
    desk.under_test.edit({**toy_files(f"wait for {gates}/gate"), "agents/a.py": "x = 1\n"})
    run = desk.told(desk.under_test.push("main"))
    desk.killed_in_the_middle(gates / "gate")
    before = runs.show_run(desk.repository, run)
    assert [step.state for step in before.steps] == [State.SUCCEEDED, State.RUNNING]
    (gates / "gate").touch()
    desk.work()
    after = runs.show_run(desk.repository, run)
    assert after.state is State.SUCCEEDED
    assert after.options["runs"] == before.options["runs"], "the pieces kept their runs"
    assert desk.artifacts() == ["raw/toy/v1.0.0", "release/toy/v1.0.0"]


def processes_that_mention(text: str) -> list[str]:
    """Stage processes, with what builds their sandbox: its command line has the folder of the gate."""
    folder = str(Path(text).parent)
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if folder in line and "step.json" in line:
            found.append(line)
    return found


def test_who_follows_a_run_sees_it_resumed_from_its_beginning(desk: Any, toy_files: Files, gates: Path) -> None:
    desk.under_test.edit(toy_files(f"wait for {gates}/gate"))
    run = desk.told(desk.under_test.push("main"))
    desk.killed_in_the_middle(gates / "gate")
    follow = runs.tail_run(desk.repository, run, follow=True, patience_s=60)
    assert [type(next(follow)) for _ in range(2)] == [watch.RunStarted, watch.StepStarted]
    (gates / "gate").touch()
    worker = working(desk)
    rest = list(follow)
    worker.join()
    assert isinstance(rest[-1], watch.RunEnded)
    assert [e.artifact for e in rest if isinstance(e, watch.StepEnded)] == ["raw/toy/v1.0.0", "release/toy/v1.0.0"]


def test_a_line_that_holds_what_unicode_calls_a_line_end_is_one_event(tmp_path: Path) -> None:
    repository = MemoryRepository(tmp_path, clock=CountingClock())
    record = RunRecord(run_of(1), "tier", "micro", "", "test", state=State.SUCCEEDED)
    lines = [watch.StepLine("echo", "one\u2028two\x85three"), watch.RunEnded(run_of(1), "succeeded")]
    events = "".join(watch.encode(line) + "\n" for line in lines).encode()
    repository.runs.write(run_of(1), {RECORD: record.to_bytes(), "events.jsonl": events})
    assert list(runs.tail_run(repository, run_of(1))) == lines


# --- asking for runs --------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> MemoryRepository:
    """Ten runs in memory: the newest still running, one in the middle abandoned, one without a record."""
    repository = MemoryRepository(tmp_path, clock=CountingClock())
    for number in range(10):
        state = {9: State.RUNNING, 4: State.ABANDONED}.get(number, State.SUCCEEDED)
        record = RunRecord(run_of(number), "tier", "micro", "", "test", state=state, created_ms=number)
        repository.runs.write(run_of(number), {RECORD: record.to_bytes()} if number != 2 else {"checkpoint/a": b"x"})
    return repository


def run_of(number: int) -> Any:
    return make_ulid(1_700_000_000_000 + number, bytes([number]) * 10)


def test_the_oldest_runs_that_have_ended_are_forgotten(kept: MemoryRepository) -> None:
    assert sorted(runs.forget_old(kept, keep=3)) == [run_of(number) for number in (0, 1, 2, 3, 5, 6)]
    assert list(kept.runs.list()) == [run_of(number) for number in (9, 8, 7, 4)]
    assert runs.forget_old(kept, keep=3) == [], "one that can still be resumed is kept"


def test_nothing_is_forgotten_while_there_are_few(kept: MemoryRepository) -> None:
    assert runs.forget_old(kept) == []
    assert len(kept.runs.list()) == 10


def test_a_record_that_cannot_be_read_does_not_stop_the_worker(toy_desk: Any, toy_files: Files) -> None:
    toy_desk.repository.runs.write(run_of(0), {RECORD: b'{"format": 99}'})
    toy_desk.under_test.edit(toy_files("new"))
    run = toy_desk.told(toy_desk.under_test.push("main"))
    toy_desk.work()
    assert runs.show_run(toy_desk.repository, run).state is State.SUCCEEDED
    assert run_of(0) not in runs.forget_old(toy_desk.repository, keep=0), "a newer workbench may know what it is"
    assert list(records.abandon_dead(toy_desk.repository, toy_desk.host.clock)) == []
    assert run_of(0) not in [record.id for record in runs.list_runs(toy_desk.repository)]
    with pytest.raises(Corrupt, match="has format 99"):
        runs.show_run(toy_desk.repository, run_of(0))


def test_the_worker_forgets_after_each_push(toy_desk: Any, toy_files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs.forget_old, "__defaults__", (2,))
    for number in range(3):
        toy_desk.under_test.edit(toy_files(f"number {number}"))
        toy_desk.told(toy_desk.under_test.push("main"))
    toy_desk.work()
    assert len(toy_desk.runs()) == 2


def test_a_run_is_found_by_either_end_of_its_id(kept: MemoryRepository) -> None:
    run = run_of(7)
    assert runs.find_run(kept, run) == run
    assert runs.find_run(kept, run[-8:].lower()) == run
    with pytest.raises(UserError, match="runs fit"):
        runs.find_run(kept, run[:7])
    for text in ("ZZZZZZ", run[-5:], ""):
        with pytest.raises(NotFound, match=r"6 characters|no run"):
            runs.find_run(kept, text)
    with pytest.raises(NotFound, match="no run"):
        runs.show_run(kept, make_ulid(5, bytes(10)))


def test_runs_are_listed_newest_first_with_those_that_wait(toy_desk: Any, toy_files: Files) -> None:
    told = []
    for text in ("one", "two"):
        toy_desk.under_test.edit(toy_files(text))
        told.insert(0, toy_desk.told(toy_desk.under_test.push("main")))
    listed = runs.list_runs(toy_desk.repository)
    assert [record.id for record in listed][:2] == told
    assert [record.state for record in listed][:3] == [State.QUEUED, State.QUEUED, State.SUCCEEDED]
    assert "owner" in listed[0].trigger
    assert runs.list_runs(toy_desk.repository, 1) == listed[:1]
