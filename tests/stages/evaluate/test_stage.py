"""The whole stage on a small model: its files, their bytes, and what it says when something is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from workbench.app import wiring
from workbench.app.stage_host import run_in_process
from workbench.domain.errors import Corrupt, ToolMissing, UserError
from workbench.domain.events import Log, Progress
from workbench.sandbox.bubblewrap import Bubblewrap
from workbench.stages.evaluate.spec import SPEC
from workbench.stages.evaluate.stage import run

SMALL = {
    "likelihood_bytes": 6000,
    "line_tasks": 8,
    "compile_tasks": 4,
    "samples": 2,
    "max_new_tokens": 24,
    "resamples": 200,
}


class Refusing:
    """A machine without bubblewrap."""

    def probe(self) -> str:
        return "bubblewrap is not installed; run: sudo apt-get install -y bubblewrap"

    def run(self, job):
        raise ToolMissing(self.probe())

    def map(self, jobs, workers=1):
        return [self.run(job) for job in jobs]


@pytest.fixture(scope="module")
def evaluate(dataset, tokenizer, tmp_path_factory):
    def go(model: Path, *, workers: int = 1, previous: Path | None = None, said=None, **params):
        inputs = {"model": model, "tokenizer": tokenizer, "dataset": dataset}
        if previous is not None:
            inputs["previous"] = previous
        output = tmp_path_factory.mktemp("metrics")
        result = run_in_process(
            SPEC, run, inputs=inputs, output=output, params={**SMALL, **params}, workers=workers, on_event=said
        )
        return output, result

    return go


@pytest.fixture(scope="module")
def events():
    return []


@pytest.fixture(scope="module")
def first(evaluate, model, events):
    return evaluate(model, said=events.append)


def read(folder: Path) -> tuple[dict, list[dict]]:
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return json.loads((folder / "metrics.json").read_text()), rows


def test_no_more_is_done_than_there_is_to_do(first, events):
    told = [event for event in events if isinstance(event, Progress)]
    assert any("stand alone" in event.unit for event in told)
    assert not [event for event in told if event.total is not None and event.done > event.total]


def test_the_figures_follow_from_the_samples(first):
    folder, result = first
    metrics, rows = read(folder)
    documents = [row for row in rows if row["kind"] == "document"]
    total = sum(row["bits"] for row in documents) / sum(row["bytes"] for row in documents)
    assert metrics["likelihood"]["bits_per_byte"] == pytest.approx(total, abs=1e-6)
    assert result.metrics["bits_per_byte"] == metrics["likelihood"]["bits_per_byte"]
    assert metrics["comparison"] is None
    for layout in ("psm", "spm"):
        lines = [row for row in rows if row["kind"] == "line" and row["layout"] == layout]
        assert metrics["fim"][layout]["tasks"] == len(lines) == 8
        assert metrics["fim"][layout]["exact_match"] == sum(row["exact"] for row in lines) / len(lines)


def test_every_snippet_compiled_before_it_was_masked(first):
    if Bubblewrap().probe():
        pytest.skip("no sandbox")
    folder, _ = first
    metrics, rows = read(folder)
    compile = metrics["compile"]
    assert compile["refused"] == ""
    assert 0 < compile["tasks"] <= 4
    assert compile["snippets_standing"] >= compile["tasks"]
    assert set(compile["pass_at"]) == {"1", "2"}
    assert len([row for row in rows if row["kind"] == "compile"]) == compile["tasks"] * 3
    assert "foreign" not in "".join(row["prefix"] for row in rows if row["kind"] == "task" and row["set"] == "compile")


def test_the_same_bytes_for_any_number_of_workers_and_every_time(first, evaluate, model):
    again, _ = evaluate(model, workers=1)
    many, _ = evaluate(model, workers=3)
    for name in ("metrics.json", "samples.jsonl", "report.html"):
        expected = (first[0] / name).read_bytes()
        assert (again / name).read_bytes() == expected, name
        assert (many / name).read_bytes() == expected, name


def test_the_report_stands_alone(first):
    page = (first[0] / "report.html").read_text()
    assert page.count("<svg") == page.count("</svg>") >= 3
    assert not re.search(r"<script|<link|@import|src=", page)
    hosts = set(re.findall(r"https?://([^/\"'\s]+)", page))
    assert hosts <= {"www.w3.org"}
    assert not re.search(r"20\d\d-\d\d-\d\d", page)


def test_against_itself_nothing_changed(first, evaluate, model):
    folder, _ = evaluate(model, previous=first[0])
    rows = json.loads((folder / "metrics.json").read_text())["comparison"]["rows"]
    assert {row["metric"] for row in rows} >= {"bits_per_byte", "fim_exact_match_psm", "fim_exact_match_spm"}
    assert {(row["delta"], row["verdict"]) for row in rows if row["pairs"] >= 8} == {(0.0, "same")}
    assert "Against the previous version" in (folder / "report.html").read_text()


def test_another_model_is_told_apart(first, evaluate, other_model):
    folder, _ = evaluate(other_model, previous=first[0], compile="skip")
    rows = {row["metric"]: row for row in json.loads((folder / "metrics.json").read_text())["comparison"]["rows"]}
    assert rows["bits_per_byte"]["delta"] != 0
    assert rows["bits_per_byte"]["verdict"] in ("improved", "worse", "same")
    assert "compile_rate" not in rows


def test_previous_metrics_that_cannot_be_read_are_corrupt_and_other_formats_are_refused(
    evaluate, model, tmp_path: Path
):
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(Corrupt, match="previous metrics"):
        evaluate(model, previous=tmp_path, compile="skip")
    (tmp_path / "metrics.json").write_text('{"format": 99}')
    folder, _ = evaluate(model, previous=tmp_path, compile="skip")
    assert "format 99" in json.loads((folder / "metrics.json").read_text())["comparison"]["refused"]


def test_without_a_sandbox_compiling_is_refused_and_the_rest_is_measured(evaluate, model, monkeypatch):
    monkeypatch.setattr(wiring, "sandbox", Refusing)
    events = []
    folder, result = evaluate(model, said=events.append)
    assert any(isinstance(event, Log) and "apt-get install" in event.text for event in events)
    compile = read(folder)[0]["compile"]
    assert "bubblewrap is not installed" in compile["refused"]
    assert (compile["tasks"], compile["compile_rate"]) == (0, None)
    assert "compile_rate" not in result.metrics
    assert "Nothing was compiled" in (folder / "report.html").read_text()


def test_where_compiling_is_required_its_lack_ends_the_stage_before_it_computes(evaluate, model, monkeypatch):
    monkeypatch.setattr(wiring, "sandbox", Refusing)
    with pytest.raises(ToolMissing, match="apt-get install"):
        evaluate(model, compile="require")


def test_a_tokenizer_that_the_model_does_not_know_is_refused(evaluate, model, tmp_path: Path):
    import shutil

    shutil.copytree(model, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    with pytest.raises(UserError, match="the model has 300 tokens"):
        evaluate(tmp_path / "m")


def test_more_new_tokens_than_the_context_holds_are_refused(evaluate, model):
    with pytest.raises(UserError, match="max_new_tokens"):
        evaluate(model, max_new_tokens=250)


def test_a_model_without_a_training_log_has_a_report_without_a_curve(evaluate, model, tmp_path: Path):
    import shutil

    shutil.copytree(model, tmp_path / "m")
    (tmp_path / "m" / "training.jsonl").unlink()
    folder, _ = evaluate(tmp_path / "m", compile="skip")
    assert "running mean" not in (folder / "report.html").read_text()


def test_held_out_text_that_cannot_stand_alone_is_said_so(evaluate, model, monkeypatch):
    from workbench.stages.evaluate import stage

    if Bubblewrap().probe():
        pytest.skip("no sandbox")
    monkeypatch.setattr(stage, "snippets", lambda source: iter(()))
    events = []
    folder, result = evaluate(model, said=events.append, compile="require")
    compile = read(folder)[0]["compile"]
    assert (compile["tasks"], compile["compile_rate"]) == (0, None)
    assert compile["refused"].startswith("no part of the held-out files can stand alone")
    assert "Nothing was compiled" in (folder / "report.html").read_text()
    assert any(isinstance(event, Log) and "nothing is compiled" in event.text for event in events)
    assert "compile_rate" not in result.metrics


def test_the_control_of_bits_per_byte_is_the_entropy_of_the_text_s_bytes(first):
    likelihood = read(first[0])[0]["likelihood"]
    assert 3.5 < likelihood["control_bits_per_byte"] < 5.5
    assert likelihood["bits_per_byte"] > likelihood["control_bits_per_byte"]  # random weights know less than that
