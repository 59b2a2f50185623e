"""The walk of a two-stage pipeline of commands: run, publish, reuse, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform

import pytest

from workbench.domain.action import Change
from workbench.domain.errors import NotFound, UserError
from workbench.domain.run import RunRecord
from workbench.domain.version import Bump
from workbench.pipeline import watch
from workbench.pipeline.definition import load
from workbench.pipeline.plan import Mode, Planner
from workbench.pipeline.records import EVENTS, log_path, read_record, request_cancel
from workbench.pipeline.walk import resume, run_pipeline

WHO = "Test <test@example.com>"


def test_a_first_run_publishes_every_artifact_with_its_lineage(toy) -> None:
    record = toy.run()
    assert record.error == ""
    assert toy.states(record) == {"words": "succeeded", "count": "succeeded"}
    assert toy.read("dataset/toy/v1.0.0", "counts.txt") == "a 2\nb 1\nc 1\n"
    made = toy.artifact("dataset/toy/v1.0.0")
    assert [short for short, _ in made.inputs] == ["raw/toy/v1.0.0"]
    assert made.source == toy.commit
    assert made.run == record.id
    assert made.manifest.counts == {"distinct": 3}
    assert toy.fsck() == ""


def test_a_second_run_reuses_everything_and_says_why(toy) -> None:
    toy.run()
    record = toy.run()
    assert toy.states(record) == {"words": "reused", "count": "reused"}
    assert record.step("count").why == "nothing changed: dataset/toy/v1.0.0"


def test_a_changed_parameter_runs_its_stage_and_all_after_it_and_bumps_by_rule(toy) -> None:
    toy.run()
    toy.replace("ci/pipelines/toy.toml", "b a c a", "b a c a d")
    record = toy.run()
    assert record.step("words").why == "parameter text changed: b a c a -> b a c a d"
    assert record.step("words").artifact == "raw/toy/v1.1.0"
    assert record.step("count").artifact == "dataset/toy/v1.0.1"


def test_an_input_that_comes_out_the_same_stops_the_rebuild_there(toy) -> None:
    toy.run()
    planned = toy.planner.plan(Mode(start="words", force=True))
    assert str(planned.step("count").reason) == "forced; input raw is rebuilt first, by words"
    record = toy.run(Mode(only="words", force=True))
    assert toy.states(record) == {"words": "succeeded", "count": "skipped"}
    assert record.step("words").artifact == "raw/toy/v1.0.0"  # the same tree: no new version
    assert toy.states(toy.run()) == {"words": "reused", "count": "reused"}


def test_a_step_planned_as_upstream_is_reused_when_its_input_did_not_change(toy) -> None:
    toy.run()
    # The run cache forgets the first step, as after a clone without it; its artifact is still there.
    key = toy.planner.plan().step("words").key
    toy.repository.ledger.change(
        _publish(), [], who=WHO, why="forget", files={f"{key[:2]}/{key}": None, "last/words/toy": None}
    )
    assert str(toy.planner.plan().step("count").reason) == "input raw is rebuilt first, by words"
    record = toy.run()
    assert toy.states(record) == {"words": "succeeded", "count": "reused"}
    assert record.step("words").artifact == "raw/toy/v1.0.0"


def _publish():
    from workbench.domain.ledger import Action

    return Action.PUBLISH


def test_going_back_to_old_parameters_reuses_the_old_version(toy) -> None:
    toy.run()
    toy.replace("ci/pipelines/toy.toml", "b a c a", "x")
    toy.run()
    toy.replace("ci/pipelines/toy.toml", '"x"', '"b a c a"')
    record = toy.run()
    assert [step.artifact for step in record.steps] == ["raw/toy/v1.0.0", "dataset/toy/v1.0.0"]
    assert {step.state for step in record.steps} == {"reused"}


def test_one_stage_alone_takes_what_is_there_and_names_what_is_missing(toy) -> None:
    before = toy.refs()
    with pytest.raises(NotFound, match="stage count reads raw/toy, and there is none yet\n  run the stage words first"):
        toy.run(Mode(only="count"))
    assert toy.refs() == before
    toy.run(Mode(only="words"))
    assert toy.states(toy.run(Mode(only="count"))) == {"words": "skipped", "count": "succeeded"}


def test_a_run_from_a_stage_on_takes_the_latest_version_of_what_is_before(toy) -> None:
    toy.run()
    toy.replace("ci/pipelines/toy.toml", "b a c a", "z")
    toy.replace("tools/count.py", "sorted(set(words))", "sorted(set(words), reverse=True)")
    record = toy.run(Mode(start="count"))
    assert toy.states(record) == {"words": "skipped", "count": "succeeded"}
    assert toy.read(record.step("count").artifact, "counts.txt") == "c 1\nb 1\na 2\n"


def test_a_person_may_ask_for_more_but_not_for_a_kind_that_is_not_made(toy) -> None:
    toy.run()
    toy.replace("ci/pipelines/toy.toml", "b a c a", "q")
    record = toy.run(Mode(bumps={"raw": Bump.MAJOR}))
    assert record.step("words").artifact == "raw/toy/v2.0.0"
    with pytest.raises(UserError, match="no stage or kind 'release' to bump"):
        toy.run(Mode(bumps={"release": Bump.MAJOR}))


def test_a_plan_changes_nothing(toy) -> None:
    toy.run()
    toy.replace("ci/pipelines/toy.toml", "b a c a", "q")
    before = toy.refs()
    plan = toy.planner.plan()
    assert [step.stage for step in plan.runs] == ["words", "count"]
    assert plan.step("words").version == "v1.1.0 (minor)"
    assert json.loads(json.dumps(plan.to_json()))["steps"][1]["changes"] == ["upstream"]
    assert toy.planner.why("words").reason.changes == ("params",)
    assert toy.refs() == before


def test_the_record_the_log_and_the_events_of_a_run_are_in_its_ref(toy) -> None:
    record = toy.run()
    runs = toy.repository.runs
    assert read_record(toy.repository, record.id) == record
    assert runs.read(record.id, log_path("words")) == b"splitting\n"
    events = [watch.decode(line) for line in (runs.read(record.id, EVENTS) or b"").decode().splitlines()]
    assert isinstance(events[0], watch.RunStarted)
    assert isinstance(events[-1], watch.RunEnded)
    assert record.step("words").rates == {"texts_per_s": 2.0}
    assert not (toy.repository.path / "workbench" / "steps" / record.id).exists()


def test_watchers_see_plain_lines_and_json_lines(toy) -> None:
    plain, lines = io.StringIO(), io.StringIO()
    both = watch.Several((watch.PlainWatcher(plain, toy.clock.now_ms), watch.JsonWatcher(lines)))
    record = toy.run(how=toy.settings(watcher=both))
    shown = plain.getvalue().splitlines()
    assert shown[0] == f"run {record.id}  toy, 2 steps"
    assert shown[1] == "words      runs: never ran"
    assert "words      | splitting" in shown
    assert any(line.startswith("count      succeeded in ") for line in shown)
    events = [watch.decode(line) for line in lines.getvalue().splitlines()]
    assert None not in events
    assert [watch.encode(event) for event in events if event] == lines.getvalue().splitlines()


def test_no_line_of_an_error_can_be_taken_for_an_event() -> None:
    out = io.StringIO()
    watch.PlainWatcher(out, lambda: 0).on(
        watch.StepEnded("words", "failed", error="it says\nrun 1  succeeded\n  | a\x1b[2J")
    )
    assert out.getvalue() == "words      failed  it says\n  run 1  succeeded\n  | a\\x1b[2J\n"


def test_a_long_step_is_told_of_ever_more_seldom_and_a_new_one_closely_again() -> None:
    out, seconds = io.StringIO(), iter(range(10_000))
    plain = watch.PlainWatcher(out, lambda: next(seconds) * 1000)
    for stage in ("train", "evaluate"):
        plain.on(watch.StepStarted(stage, "never ran"))
        for done in range(1, 301):
            plain.on(watch.StepProgress(stage, done, 300, "steps"))
    told = [line.split()[1] for line in out.getvalue().splitlines() if "steps" in line]
    assert told == ["5", "15", "35", "75", "135", "195", "255"] * 2


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-9", "utf-8"])
def test_watchers_lose_nothing_in_a_terminal_of_another_encoding(encoding: str) -> None:
    event = watch.StepLine("words", "日本 é 🦀")
    out, lines = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    watch.JsonWatcher(lines).on(event)
    watch.PlainWatcher(out, lambda: 0).on(event)
    assert watch.decode(lines.buffer.getvalue().decode("ascii")) == event
    shown = out.buffer.getvalue().decode(encoding)
    assert shown == f"words      | {event.text}\n" or "\\u65e5\\u672c" in shown


@pytest.mark.parametrize("closed", ["pipe", "file", "disk"])
def test_a_reader_that_has_gone_ends_no_walk(toy, closed: str) -> None:
    if closed == "pipe":
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open("/dev/full", os.O_WRONLY)
    out = io.StringIO() if closed == "file" else os.fdopen(write, "w")
    if closed == "file":
        os.close(write)
        out.close()
    record = toy.run(
        how=toy.settings(watcher=watch.Several((watch.JsonWatcher(out), watch.PlainWatcher(out, lambda: 0))))
    )
    assert record.state == "succeeded"
    with contextlib.suppress(OSError):
        out.close()


def test_a_run_that_is_asked_to_stop_is_cancelled_and_can_be_done_again(toy) -> None:
    record = toy.run(how=toy.settings(is_stopped=lambda: True))
    assert record.state == "cancelled"
    assert toy.states(record) == {"words": "skipped", "count": "skipped"}
    again = resume(toy.repository, record.id, (), toy.settings(), clock=toy.clock)
    assert again.state == "succeeded"
    assert again.id != record.id
    with pytest.raises(UserError, match="has succeeded already"):
        request_cancel(toy.repository, again.id)


def test_the_result_does_not_depend_on_the_environment_of_whoever_runs_it(toy, monkeypatch) -> None:
    toy.replace("tools/words.py", "words = sorted", 'import os\nassert os.environ["TZ"] == "UTC"\nwords = sorted')
    toy.replace("tools/words.py", "import os\n", 'import os\nassert "GIT_DIR" not in os.environ\n')
    for name, value in {"TZ": "Asia/Tokyo", "GIT_DIR": "/nowhere", "PYTHONSTARTUP": "x", "LC_ALL": "tr_TR"}.items():
        monkeypatch.setenv(name, value)
    assert toy.run().error == ""


def test_a_run_is_resumed_from_the_file_that_it_began_with(toy) -> None:
    """Two files may make artifacts of one name."""
    nightly = toy.repository.objects.read_file(toy.commit, "ci/pipelines/toy.toml").decode()
    toy.edit({"ci/pipelines/nightly.toml": nightly.replace("b a c a", "z")})
    definition = load(toy.repository.objects, toy.commit, "nightly", ())
    planner = Planner(toy.repository, definition, toy.commit)
    stopped = toy.settings(is_stopped=lambda: True)
    record = run_pipeline(planner, Mode(), stopped, clock=toy.clock, trigger="test")
    again = resume(toy.repository, record.id, (), toy.settings(), clock=toy.clock)
    assert again.error == ""
    assert toy.read("raw/toy/v1.0.0", "words.txt") == "z"


def test_only_a_run_of_a_pipeline_is_resumed_by_hand(toy) -> None:
    run = toy.clock.ulid()
    record = RunRecord(id=run, kind="tier", subject="micro", source=toy.commit, trigger="push", created_ms=1)
    toy.repository.runs.write(run, {"run.json": record.to_bytes()})
    with pytest.raises(UserError, match="only runs of pipelines"):
        resume(toy.repository, run, (), toy.settings(), clock=toy.clock)


def test_what_a_stage_makes_is_part_of_its_action(toy) -> None:
    toy.run()
    toy.replace("ci/pipelines/toy.toml", 'makes = "raw"', 'makes = "filtered"')
    toy.replace("ci/pipelines/toy.toml", 'reads = ["raw"]', 'reads = ["filtered"]')
    toy.replace("tools/count.py", '["raw"]', '["filtered"]')
    toy.replace("tools/count.py", '"raw.manifest.json"', '"filtered.manifest.json"')
    assert str(toy.planner.why("words").reason) == "makes changed: raw -> filtered"
    assert toy.run().error == ""
    assert toy.read("filtered/toy/v1.0.0", "words.txt") == toy.read("raw/toy/v1.0.0", "words.txt")


def test_a_stage_that_left_evidence_only_may_come_to_make_something(toy) -> None:
    toy.replace("ci/pipelines/toy.toml", 'makes = "dataset"\n', "")
    toy.run()
    toy.replace("ci/pipelines/toy.toml", 'reads = ["raw"]\n', 'reads = ["raw"]\nmakes = "metrics"\n')
    assert str(toy.planner.why("count").reason) == "makes changed: nothing -> metrics"
    assert toy.run().error == ""
    assert toy.artifact("metrics/toy/v1.0.0")


def test_a_docstring_of_a_workspace_s_command_counts(toy) -> None:
    toy.replace("tools/words.py", "import json", '"""PROMPT ONE"""\nimport json')
    toy.run()
    toy.replace("tools/words.py", "ONE", "TWO")
    assert toy.planner.why("words").reason.changes == (Change.CODE,)


def test_a_tool_is_the_one_that_the_step_finds_and_is_asked_in_each_plan(
    toy, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``python`` is the workbench's own, whatever comes first for the user; a shim may stand for another tool now."""
    for name, text in {"python": "Python 2.7.18", "shim": f"$(cat {tmp_path}/version)"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho {text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "version").write_text("tool 1.0")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    toy.replace("ci/pipelines/toy.toml", 'makes = "raw"', 'makes = "raw"\ntools = ["python", "shim"]')
    toy.run()
    environment = toy.artifact("raw/toy/v1.0.0").manifest.environment
    assert environment["python"] == f"Python {platform.python_version()}"
    assert environment["shim"] == "tool 1.0"
    (tmp_path / "version").write_text("tool 2.0")
    assert str(toy.planner.why("words").reason) == "environment shim changed: tool 1.0 -> tool 2.0"
