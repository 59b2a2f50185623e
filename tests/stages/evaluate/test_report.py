"""The page shows what strangers wrote as text, never as markup."""

from __future__ import annotations

from workbench.stages.evaluate import plots
from workbench.stages.evaluate.report import Curve, page

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
