"""What push options do, by real pushes: each has its effect, or the push is refused and nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from workbench.domain.errors import Conflict
from workbench.domain.ledger import Action
from workbench.domain.refs import Channel
from workbench.domain.run import State

Files = Callable[..., dict[str, str]]
CANARY = str(Channel("canary"))


@pytest.fixture
def toy(toy_desk: Any) -> Any:
    return toy_desk


def log_of(desk: Any, run: Any, step: str) -> str:
    return (desk.repository.runs.read(run, f"log/{step}.txt") or b"").decode()


# --- promote ----------------------------------------------------------------------------------------------------------


def test_promote_moves_the_channel_when_the_run_has_succeeded(toy: Any, toy_files: Files) -> None:
    tip = toy.under_test.edit(toy_files("new"))
    run = toy.told(toy.under_test.push("-o", "promote=canary", "main"))
    assert toy.repository.refs.get(CANARY) is None, "not before the run"
    toy.work()
    assert toy.repository.refs.get(CANARY) == tip
    entry = next(entry for entry in toy.repository.ledger.history(9) if entry.action is Action.PROMOTE)
    assert entry.evidence == {"run": run}
    assert "owner" in entry.why


def test_promote_leaves_the_channel_when_the_run_failed_or_was_cancelled(toy: Any, toy_files: Files) -> None:
    toy.under_test.edit(toy_files("fail"))
    toy.told(toy.under_test.push("-o", "promote=canary", "main"))
    toy.work()
    toy.under_test.edit(toy_files("other"))
    run = toy.told(toy.under_test.push("-o", "promote=canary", "main"))
    toy.cancel(run)
    toy.work()
    assert [record.state for record in toy.runs()][1:] == [State.FAILED, State.CANCELLED]
    assert toy.repository.refs.get(CANARY) is None


def test_promote_names_the_highest_version_of_the_push(toy: Any) -> None:
    hub = toy.under_test
    low = hub.edit({"agents/a.py": "x = 1\n"})
    for name in ("v1.9.0", "v1.2.0"):
        hub.tag(name, low)
    high = hub.edit({"agents/a.py": "x = 2\n"})
    hub.tag("v1.10.0", high)
    hub.edit({"agents/a.py": "x = 3\n"}, "not tagged yet")
    toy.told(hub.push("-o", "promote=canary", "main", "v1.9.0", "v1.2.0", "v1.10.0"))
    toy.work()
    assert [record.state for record in toy.runs()][1:] == [State.SUCCEEDED]
    assert toy.repository.refs.get(CANARY) == high


def test_promote_names_main_when_a_branch_is_pushed_along(toy: Any) -> None:
    hub = toy.under_test
    hub.edit({"agents/a.py": "x = 1\n"})
    hub.git("branch", "topic")
    tip = hub.edit({"agents/a.py": "x = 2\n"})
    toy.told(hub.push("-o", "promote=canary", "main", "topic"))
    toy.work()
    assert toy.repository.refs.get(CANARY) == tip


def test_promote_is_done_once_though_the_worker_dies_before_it_notes_that(toy: Any, toy_files: Files) -> None:
    tip = toy.under_test.edit(toy_files("new"))
    toy.told(toy.under_test.push("-o", "promote=canary", "main"))
    worker = toy.worker()
    worker._handled = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # killed at that point
    with pytest.raises(KeyboardInterrupt):
        worker.handle_all()
    assert toy.repository.refs.get(CANARY) == tip
    toy.work()
    entries = [entry for entry in toy.repository.ledger.history(20) if entry.action is Action.PROMOTE]
    assert len(entries) == 1
    assert len(toy.runs()) == 2


def test_a_promotion_that_lost_a_race_is_tried_again(toy: Any, toy_files: Files) -> None:
    tip = toy.under_test.edit(toy_files("new"))
    run = toy.told(toy.under_test.push("-o", "promote=canary", "main"))
    worker = toy.worker()
    promote, lost = worker._promote, iter([True])

    def lose_once(*arguments: Any) -> None:
        if next(lost, False):
            raise Conflict("someone moved the channel")
        promote(*arguments)

    worker._promote = lose_once
    assert worker.handle_all() == 0
    assert worker.is_stuck, "it comes back to it in a while"
    assert worker.handle_all() == 1
    assert toy.repository.refs.get(CANARY) == tip
    assert [record.id for record in toy.runs()][1:] == [run]


# --- release.bump -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "version"), [(None, "v1.0.1"), ("minor", "v1.1.0"), ("major", "v2.0.0")])
def test_a_bump_asks_for_more_of_the_release(toy: Any, toy_files: Files, option: str | None, version: str) -> None:
    """A changed text is a patch of what is counted from it, by rule."""
    toy.under_test.edit(toy_files("more words than before"))
    toy.told(toy.under_test.push(*(["-o", f"release.bump={option}"] if option else []), "main"))
    toy.work()
    assert f"release/toy/{version}" in toy.artifacts()
    assert [short for short in toy.artifacts() if short.startswith("raw/")] == ["raw/toy/v1.0.0", "raw/toy/v1.1.0"]


def test_a_bump_never_asks_for_less(toy: Any) -> None:
    """Changed code is a minor step by rule."""
    path = toy.under_test.clone / "tools/count.py"
    toy.under_test.edit({"tools/count.py": path.read_text().replace("str(len(words))", "str(2 * len(words))")})
    toy.told(toy.under_test.push("-o", "release.bump=patch", "main"))
    toy.work()
    assert "release/toy/v1.1.0" in toy.artifacts()


# --- stages -----------------------------------------------------------------------------------------------------------


def test_a_stage_that_is_asked_for_runs_alone_though_only_a_file_beside_it_changed(toy: Any) -> None:
    toy.under_test.edit({"README": "new\n"})
    pushed = toy.under_test.push("-o", "stage.run=count", "-o", "stage.force", "main")
    run = toy.told(pushed)
    assert "pipeline toy (count alone)" in pushed.text
    toy.work()
    record = toy.runs()[-1]
    assert (record.id, record.state) == (run, State.SUCCEEDED)
    assert {step.stage: step.state for step in record.steps} == {
        "words": State.SKIPPED,
        "count": State.SUCCEEDED,
    }


def test_two_stages_are_two_jobs_of_one_run(toy: Any) -> None:
    toy.under_test.edit({"README": "new\n"})
    options = ["-o", "stage.run=words", "-o", "stage.run=count", "-o", "stage.run=words"]
    toy.told(toy.under_test.push(*options, "main"))
    toy.work()
    record = toy.runs()[-1]
    assert [step.stage for step in record.steps] == ["pipeline toy (words alone)", "pipeline toy (count alone)"]
    assert record.state is State.SUCCEEDED


def test_a_forced_push_runs_what_is_known(toy: Any) -> None:
    toy.under_test.edit({"README": "new\n"})
    toy.told(toy.under_test.push("-o", "stage.force", "main"))
    toy.work()
    assert {step.state for step in toy.runs()[-1].steps} == {State.SUCCEEDED}
    assert len(toy.artifacts()) == 2, "the same bytes are the same version"


# --- tiers ------------------------------------------------------------------------------------------------------------


def test_variables_reach_the_commands_of_the_tier(toy: Any) -> None:
    toy.under_test.edit({"agents/a.py": "x = 1\n"})
    run = toy.told(toy.under_test.push("-o", "ci.variable=SAMPLES=10 $(id) = 'x'", "main"))
    toy.work()
    assert "samples=10 $(id) = 'x'" in log_of(toy, run, "echo")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("print('begun', flush=True); import ctypes; ctypes.string_at(0)", " in crash crashed (SIGSEGV)\n  | begun"),
        ("print('begun', flush=True); raise SystemExit('no good')", "exit 1\n  | begun\n  | no good"),
    ],
)
def test_a_command_of_a_tier_that_fails_is_told_with_the_end_of_its_log(toy: Any, body: str, told: str) -> None:
    tier = 'format = 1\n[[micro]]\nname = "crash"\nrun = ["python3", "agents/a.py"]\n'
    toy.under_test.edit({"agents/a.py": body + "\n", "ci/tiers.toml": tier})
    run = toy.told(toy.under_test.push("main"))
    toy.work()
    record = toy.runs()[-1]
    assert record.state is State.FAILED
    error = record.step("crash").error
    assert told in error
    assert error.endswith(f"the whole log: workbench runs tail {run}")


def test_a_tier_on_a_branch_tests_that_branch_and_starts_nothing_else(toy: Any, toy_files: Files) -> None:
    hub = toy.under_test
    hub.git("checkout", "-q", "-b", "topic")
    hub.edit({**toy_files("of the branch"), "agents/a.py": "on_topic = 1\n"})
    pushed = hub.push("-o", "ci.tier=fast", "topic")
    run = toy.told(pushed)
    assert "tier fast of topic" in pushed.text
    assert "pipeline" not in pushed.text
    toy.work()
    record = toy.runs()[-1]
    assert (record.id, record.state) == (run, State.SUCCEEDED)
    assert [step.stage for step in record.steps] == ["echo", "fast"]
    assert "on_topic" in log_of(toy, run, "echo")
    assert len(toy.artifacts()) == 2


def test_a_branch_without_a_tier_starts_nothing(toy: Any) -> None:
    hub = toy.under_test
    hub.git("checkout", "-q", "-b", "topic")
    hub.edit({"agents/a.py": "x = 1\n"})
    assert "nothing to run" in hub.push("topic").text
    assert toy.waiting() == []


def test_each_branch_of_a_push_gets_the_tier_that_was_asked_for(toy: Any) -> None:
    hub = toy.under_test
    for name in ("left", "right"):
        hub.git("checkout", "-q", "-b", name)
        hub.edit({"agents/a.py": f"on = '{name}'\n"})
    hub.git("checkout", "-q", "main")
    hub.edit({"agents/a.py": "on = 'main'\n"})
    toy.told(hub.push("-o", "ci.tier=micro", "main", "left", "right"))
    toy.work()
    record = toy.runs()[-1]
    assert record.state is State.SUCCEEDED
    assert [step.stage for step in record.steps] == ["tier micro", "tier micro of left", "tier micro of right"]
    logs = [log_of(toy, run, "echo").splitlines()[0] for run in record.options["runs"].values()]
    assert logs == ["on = 'main'", "on = 'left'", "on = 'right'"]


def test_two_pushes_of_a_branch_get_a_tier_each(toy: Any) -> None:
    hub = toy.under_test
    hub.git("checkout", "-q", "-b", "topic")
    told = []
    for number in range(3):
        hub.edit({"agents/a.py": f"x = {number}\n"})
        options = ["-o", "ci.tier=micro"] if number != 1 else []
        pushed = hub.push(*options, "topic")
        told += [toy.told(pushed)] if options else []
    toy.work()
    assert [record.id for record in toy.runs()][1:] == told
    assert [log_of(toy, run, "echo").splitlines()[0] for run in told] == ["x = 0", "x = 2"]


# --- what has no effect -----------------------------------------------------------------------------------------------


WITHOUT_EFFECT = [
    (["stage.run=cuont"], "did you mean 'count'?"),
    (["stage.run=train"], "no pipeline on main has the stage train: choose one of count, words"),
    (["release.bump=minor"], "makes no release"),
    (["release.bump=minor", "stage.run=words"], "makes no release"),
    (["ci.variable=A=1"], "starts no tier"),
    (["promote=canary"], "starts no run"),
    (["promote=Not A Channel", "stage.force"], "channel name"),
    (["ci.skip", "stage.force"], "contradict"),
    (["run.wait=0"], "run.wait=60"),
]


def test_an_option_without_effect_is_refused(toy: Any) -> None:
    before = toy.under_test.source_refs()
    toy.under_test.edit({"README": "new\n"})
    for options, says in WITHOUT_EFFECT:
        pushed = toy.under_test.push(*[word for option in options for word in ("-o", option)], "main")
        assert not pushed.accepted
        assert says in pushed.text
        assert toy.under_test.source_refs() == before
    assert toy.waiting() == []


ELSEWHERE_WITHOUT_EFFECT = [
    ("topic", ["stage.run=words", "stage.force"], "stage.run has no effect"),
    ("topic", ["stage.force"], "stage.force has no effect"),
    ("topic", ["ci.tier=micro", "stage.force"], "stage.force has no effect"),
    ("refs/notes/evals", ["ci.tier=micro"], "ci.tier has no effect"),
    ("refs/notes/evals", ["stage.run=words"], "stage.run has no effect"),
]


def test_what_a_push_would_not_start_because_of_the_refs_that_it_moves_is_refused(toy: Any) -> None:
    before = toy.under_test.source_refs()
    toy.under_test.git("notes", "--ref", "evals", "add", "-m", "n", "HEAD")
    toy.under_test.git("checkout", "-q", "-b", "topic")
    toy.under_test.edit({"README": "new\n"})
    for ref, options, says in ELSEWHERE_WITHOUT_EFFECT:
        pushed = toy.under_test.push(*[word for option in options for word in ("-o", option)], ref)
        assert not pushed.accepted
        assert says in pushed.text
    assert toy.under_test.source_refs() == before


def test_forcing_where_there_is_no_pipeline_is_refused(desk: Any) -> None:
    desk.under_test.edit({"README": "new\n"})
    pushed = desk.under_test.push("-o", "stage.force", "main")
    assert not pushed.accepted
    assert "no pipeline" in pushed.text


def test_a_skipped_push_starts_nothing_and_the_ledger_says_why(toy: Any, toy_files: Files) -> None:
    toy.under_test.edit(toy_files("skipped"))
    assert "ci.skip" in toy.under_test.push("-o", "ci.skip", "main").text
    toy.work()
    assert len(toy.runs()) == 1
    entry = toy.repository.ledger.head()
    assert entry.evidence == {"pusher": "owner", "options": {"skip": True}}


def test_a_dry_run_tells_the_plan_of_a_pipeline_and_leaves_nothing(toy: Any, toy_files: Files) -> None:
    before = toy.under_test.refs()
    toy.under_test.edit(toy_files("dry"))
    pushed = toy.under_test.push("-o", "run.dry", "-o", "release.bump=major", "main")
    assert not pushed.accepted
    assert "pipeline toy: ci/pipelines/toy.toml changed" in pushed.text
    assert "words" in pushed.text
    assert toy.under_test.refs() == before


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_a_push_waits_for_its_run_and_shows_its_steps(hub: Any, toy_files: Files) -> None:
    hub.edit(toy_files())
    pushed = hub.push("-o", "run.wait", "main")
    assert pushed.accepted
    for said in ("words", "count", "raw/toy/v1.0.0", "release/toy/v1.0.0", "succeeded"):
        assert said in pushed.text


def test_a_push_waits_no_longer_than_it_said(desk: Any, toy_files: Files) -> None:
    desk.under_test.edit(toy_files())
    pushed = desk.under_test.push("-o", "run.wait=1", "main")
    assert "still running; follow: workbench runs tail" in pushed.text
    assert len(desk.waiting()) == 1
