"""The page shows what strangers wrote as text, never as markup."""

from __future__ import annotations

import json

from workbench.stages.evaluate import plots
from workbench.stages.evaluate.report import Curve, page, read_curve

HOSTILE = "</pre><script>alert(1)</script>&\x00\u202e"


def metrics(**changes):
    fim = {
        "tasks": 3,
        "exact_match": 0.333333,
        "exact_match_interval": [0.1, 0.7],
        "similarity": 0.5,
        "ended_rate": 1.0,
    }
    found = {
        "split": "validation",
        "confidence": 0.95,
        "likelihood": {
            "bits_per_byte": 1.5,
            "control_bits_per_byte": 4.7,
            "perplexity": 9.0,
            "bytes_per_token": 2.5,
            "documents": 2,
            "bytes": 100,
            "tokens": 40,
        },
        "fim": {"psm": fim, "spm": fim},
        "compile": {
            "refused": HOSTILE,
            "tasks": 0,
            "compile_rate": None,
            "compile_rate_interval": None,
            "control_compile_rate": None,
            "pass_at": {},
        },
        "comparison": {"refused": HOSTILE, "rows": []},
    }
    return {**found, **changes}


ANSWER = {"layout": "psm", "sample": 0, "completion": "said", "exact": False}
ROWS = [
    {"kind": "document", "id": "a", "bits": 80.0, "bytes": 50, "tokens": 20},
    {"kind": "document", "id": "b", "bits": 70.0, "bytes": 50, "tokens": 20},
    {"kind": "task", "set": "line", "task": "t", "prefix": HOSTILE, "middle": HOSTILE, "suffix": HOSTILE},
    {
        "kind": "compile",
        "task": "t",
        "layout": "psm",
        "sample": 0,
        "completion": HOSTILE,
        "exact": False,
        "compiles": False,
    },
]


def test_what_strangers_wrote_is_escaped():
    text = page(HOSTILE, metrics(), ROWS, Curve((), ()))
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 6


def test_the_same_figures_give_the_same_bytes():
    curve = Curve([(n, 5 - n / 100) for n in range(200)], [(50, 4.0), (100, 3.5)])
    assert page("m", metrics(), ROWS, curve) == page("m", metrics(), ROWS, curve)


def test_plots_hold_no_time_and_no_vocabulary_of_others():
    for svg in (
        plots.curve([(1, 5.0), (2, 4.0)], []),
        plots.bars([("a", 0.5, (0.4, 0.6), plots.BLUE), ("b", 0.0, None, plots.GREY)]),
        plots.spread([1.0, 2.0], [10, 20], 1.6),
        plots.changes([("a", -0.1, -0.2, 0.0, "improved"), ("b", 0.1, -0.2, 0.3, "same")]),
    ):
        assert svg.startswith("<svg")
        assert "metadata" not in svg
        assert "purl.org" not in svg


def test_a_curve_of_one_step_is_drawn():
    assert plots.curve([(1, 5.0)], []).startswith("<svg")


def test_validation_as_training_logs_it_is_drawn_on_an_axis_of_its_own(tmp_path):
    lines = [{"step": n, "loss": 5 - n / 100} for n in range(100)]
    for n in (49, 99):
        lines[n]["validation_bits_per_byte"] = 3 - n / 100
    (tmp_path / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curve = read_curve(tmp_path)
    assert curve.validation == [(49, 2.51), (99, 2.01)]
    assert plots.curve(curve.train, curve.validation) != plots.curve(curve.train, [])


def test_wrong_answers_are_shown_even_where_nothing_was_compiled():
    rows = [
        {"kind": "document", "id": "a", "bits": 80.0, "bytes": 50, "tokens": 20},
        *({"kind": "task", "set": "line", "task": n, "prefix": "p", "middle": "m", "suffix": "s"} for n in "ab"),
        {"kind": "line", "task": "a", **ANSWER, "completion": "wrong answer"},
        {"kind": "line", "task": "b", **ANSWER, "completion": "m", "exact": True},
    ]
    text = page("x", metrics(), rows, Curve((), ()))
    assert "wrong answer" in text
    assert "Filled otherwise, not compiled" in text
    assert text.count("1 of 2; the first 1.") == 2


def test_shares_are_of_what_was_compiled_not_of_all_that_was_asked():
    tasks = [{"kind": "task", "set": "", "task": n, "prefix": "", "middle": "m", "suffix": ""} for n in "abcd"]
    rows = [
        {"kind": "document", "id": "a", "bits": 80.0, "bytes": 50, "tokens": 20},
        *tasks,
        *({"kind": "line", "task": n, **ANSWER} for n in "ab"),
        {"kind": "compile", "task": "c", **ANSWER, "compiles": True},
        {"kind": "compile", "task": "d", **ANSWER, "compiles": False},
    ]
    text = page("x", metrics(), rows, Curve((), ()))
    for title, share in (("Filled otherwise, and compiles", 1), ("Does not compile", 1), ("not compiled", 2)):
        assert f'{title}</h2><p class="note">{share} of 2;' in text, title


def test_a_figure_stands_beside_its_control_and_its_interval():
    compile = metrics()["compile"] | {"refused": "", "tasks": 7, "compile_rate": 0.0, "control_compile_rate": 0.142857}
    compile |= {"compile_rate_interval": [0.0, 0.354], "snippets_standing": 13, "snippets_tried": 13, "samples": 4}
    text = page("x", metrics(compile=compile | {"temperature": 0.8}), ROWS, Curve((), ()))
    assert "of 7 filled snippets compile (0% to 35%); 14.3% with the gap left empty" in text
    assert "byte frequencies alone: 4.700" in text


def test_a_long_answer_of_a_weak_model_does_not_fill_the_page():
    rows = [*ROWS[:-1], {**ROWS[-1], "completion": "\n" * 500}]
    text = page("x", metrics(), rows, Curve((), ()))
    assert "489 lines more" in text
