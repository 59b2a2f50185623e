"""The live table in terminals of many widths, drawn by the real renderer."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from workbench.cli.live import LiveTable
from workbench.pipeline.watch import (
    RunEnded,
    RunStarted,
    StepEnded,
    StepLine,
    StepProgress,
    StepStarted,
    amount,
    describe,
)

STAGES = ("crawl", "filter", "dataset", "tokenizer", "shard", "train", "evaluate", "package", "serve")
EVENTS = [
    RunStarted("01JAB3DEFGHJKMNPQRSTVWXYZ0", "rust", dict.fromkeys(STAGES, "never ran")),
    StepEnded("crawl", "reused", "raw/rust/v1.0.0", "nothing changed: raw/rust/v1.0.0"),
    StepEnded("filter", "succeeded", "filtered/rust/v1.0.0", "the first version", seconds=12.34),
    StepStarted("train", "never ran", resumed=True),
    StepProgress("train", 120, 480, "steps", {"tokens_per_s": 12345.678, "loss": 3.25}),
    StepEnded("evaluate", "failed", error="evaluate failed: x\n  do y", seconds=0.4),
]


def drawn(width: int, events: list[object] = EVENTS) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=50, force_terminal=True, color_system=None, legacy_windows=False)
    table = LiveTable(console)
    for event in events:
        table.on(event)  # type: ignore[arg-type]
    console.print(table._table())
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [30, 36, 38, 40, 50, 65, 66, 76, 80, 100, 200])
def test_every_stage_and_its_state_can_be_read_and_no_line_is_too_long(width: int) -> None:
    lines = drawn(width)
    assert all(len(line) <= width for line in lines)
    states = {"crawl": "reused", "filter": "succeeded", "train": "running", "evaluate": "failed", "serve": "waiting"}
    for stage in STAGES:
        row = next(line for line in lines if line.startswith(stage))
        assert row.split()[1] == states.get(stage, "waiting")


def test_a_wide_terminal_shows_bars_rates_times_and_reasons() -> None:
    text = "\n".join(drawn(110))
    assert text.count("━") == 4  # a quarter of sixteen
    assert "12,346 tokens_per_s" in text
    assert "12.3 s" in text
    assert "raw/rust/v1.0.0  nothing changed" in text
    assert "evaluate failed: x" in text
    assert "do y" not in text  # one line a stage


def test_eighty_columns_have_room_for_the_artifact() -> None:
    assert any(line.startswith("crawl") and "raw/rust/v1.0.0" in line for line in drawn(80))
    assert any(line.startswith("filter") and "12.3 s" in line for line in drawn(66))


def test_a_narrow_terminal_still_shows_how_far_it_is() -> None:
    row = next(line for line in drawn(40) if line.startswith("train"))
    assert "━━" in row
    assert row.rstrip().endswith("s")


@pytest.mark.parametrize(
    ("done", "total"), [(0, 0), (5, 3), (-1, 10), (1, -5), (1e300, 1e300), (0.5, None), (1e300, None)]
)
def test_any_amount_can_be_drawn(done: float, total: float | None) -> None:
    progress = StepProgress("train", done, total, "x" * 40, {"r" * 40: 1e300, "s": -0.0})
    assert all(len(line) <= 80 for line in drawn(80, [*EVENTS[:4], progress]))
    assert "\n" not in describe(progress)


def test_an_amount_is_told_in_figures_that_people_read() -> None:
    progress = StepProgress("train", 1200, 48000, "steps", {"MB/s": 3.14159, "tokens/s": 123456.7})
    assert amount(progress) == "1,200 / 48,000 steps  3.142 MB/s  123,457 tokens/s"
    assert amount(StepProgress("train", 3, None, "files")) == "3 files"


def test_it_follows_a_run_to_its_end_on_a_terminal() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    with LiveTable(console) as table:
        for event in (*EVENTS, StepLine("train", "a line"), RunEnded("01JAB3", "failed", "x", 61.0)):
            table.on(event)
    assert "train: a line" in out.getvalue()
    assert "failed in 61.0 s" in out.getvalue()


def test_words_of_others_are_no_markup_and_no_control_characters() -> None:
    out = io.StringIO()
    console = Console(file=out, width=160, force_terminal=False)
    with LiveTable(console) as table:
        table.on(RunStarted("R", "[bold]x[/bold]\x1b]0;t\x07", {"a[red]": "[link=http://example.org]why[/link]"}))
        table.on(StepLine("a[red]", "[blink]\x1b[31m"))
        table.on(StepEnded("a[red]", "failed[/]", error="[/nothing] \u202e"))
    said = out.getvalue()
    for words in ("[bold]x[/bold]", "a[red]", "[blink]", "[/nothing]"):
        assert words in said
    assert not any(sign in said for sign in ("\x1b]", "\x1b[31m", "\x07", "\u202e"))
