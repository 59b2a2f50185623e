"""A run as a live table: one row a stage, with a bar and rates while it works. For terminals only."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from workbench.domain.printable import one_line
from workbench.pipeline.watch import (
    RunEnded,
    RunStarted,
    StepEnded,
    StepLine,
    StepProgress,
    StepStarted,
    WalkEvent,
    rates,
)

# What a terminal of so many columns has room for, in this order; what says least goes first.
_COLUMNS = {"stage": 0, "state": 0, "progress": 38, "rate": 66, "time": 30, "artifact / why": 76}
_ROOMY = 100  # columns from which bar and rates are long
_BARS, _RATES = (16, 12, 8), (24, 14)

_STYLES = {"running": "cyan", "succeeded": "green", "reused": "dim", "failed": "bold red", "cancelled": "yellow"}


class _Row:
    def __init__(self, why: str) -> None:
        self.state = "waiting"
        self.why = why
        self.started = 0.0
        self.progress: StepProgress | None = None
        self.ended: StepEnded | None = None


class LiveTable:
    """A watcher and a context manager. Log lines of stages scroll by above the table."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._rows: dict[str, _Row] = {}
        self._title = ""
        self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=8, transient=False)

    def __enter__(self) -> LiveTable:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def on(self, event: WalkEvent) -> None:
        if isinstance(event, RunStarted):
            self._title = f"run {event.run} · {event.subject}"
            self._rows = {stage: _Row(why) for stage, why in event.steps.items()}
        elif isinstance(event, StepStarted):
            row = self._row(event.stage)
            row.state, row.why, row.started = "running", event.why, time.monotonic()
        elif isinstance(event, StepProgress):
            self._row(event.stage).progress = event
        elif isinstance(event, StepLine):
            self._console.print(_text(f"{event.stage}: {event.text}", "dim"))
        elif isinstance(event, StepEnded):
            row = self._row(event.stage)
            row.state, row.ended = event.state, event
        elif isinstance(event, RunEnded):
            self._title += f" · {event.state} in {event.seconds:.1f} s"

    def _row(self, stage: str) -> _Row:
        return self._rows.setdefault(stage, _Row(""))

    def _table(self) -> Table:
        width = self._console.width
        bar = _BARS[(width < _ROOMY) + (width < _COLUMNS["rate"])]
        gap = 2 if width >= _COLUMNS["rate"] else 1
        table = Table(title=_text(self._title), title_justify="left", box=None, padding=(0, gap, 0, 0), expand=True)
        table.add_column("stage", no_wrap=True, min_width=max(map(len, self._rows), default=0))
        table.add_column("state", no_wrap=True, min_width=max(map(len, _STYLES)))
        table.add_column("progress", width=bar, no_wrap=True)
        table.add_column("rate", max_width=_RATES[width < _ROOMY], no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True, min_width=7)
        table.add_column("artifact / why", overflow="ellipsis", no_wrap=True, ratio=1)
        shown = [number for number, least in enumerate(_COLUMNS.values()) if width >= least]
        table.columns = [table.columns[number] for number in shown]
        for stage, row in self._rows.items():
            state = _text(row.state, _STYLES.get(row.state, ""))
            shown_cells = (cell if isinstance(cell, ProgressBar) else _text(cell) for cell in self._cells(row, bar))
            cells = (_text(stage), state, *shown_cells)
            table.add_row(*(cells[number] for number in shown))
        return table

    def _cells(self, row: _Row, bar: int) -> tuple[ProgressBar | str, str, str, str]:
        if row.ended is not None:
            ended = row.ended
            seconds = f"{ended.seconds:.1f} s" if ended.state not in ("reused", "skipped") else ""
            what = ended.error or "  ".join(part for part in (ended.artifact, ended.why) if part)
            return "", "", seconds, what.splitlines()[0] if what else ""
        if row.state != "running":
            return "", "", "", row.why
        elapsed = f"{time.monotonic() - row.started:.0f} s"
        progress = row.progress
        if progress is None:
            return "", "", elapsed, row.why
        if progress.total:
            return (
                ProgressBar(total=progress.total, completed=progress.done, width=bar),
                rates(progress),
                elapsed,
                row.why,
            )
        return f"{progress.done:,.0f} {progress.unit}", rates(progress), elapsed, row.why


def _text(words: str, style: str = "") -> Text:
    """Words of others: no markup, no control characters."""
    return Text(one_line(words), style=style)
