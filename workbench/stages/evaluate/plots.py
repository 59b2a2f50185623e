"""Plots as SVG text, the same bytes for the same figures. Not here: what is plotted, and the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

INK, MUTED, GRID = "#1f2933", "#66707c", "#e4e7eb"
BLUE, ORANGE, GREEN, RED, GREY = "#2f6fb2", "#d9822b", "#2c8a5b", "#c0392b", "#9aa5b1"
_STYLE = {
    "svg.hashsalt": "workbench",  # ids inside the SVG come from this, not from the clock
    "svg.fonttype": "path",  # looks the same wherever it is opened
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "legend.frameon": False,
}


@contextmanager
def _drawing(width: float, height: float) -> Iterator[tuple[Any, Any, list[str]]]:
    """A figure and its axes; the SVG is in the list when the block has ended."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    svg: list[str] = []
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot(), svg
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        svg.append(_inline(out.getvalue()))


def _inline(document: str) -> str:
    """The ``<svg>`` element alone, scaled by its page; without the metadata, which names outside vocabularies."""
    element = document[document.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>\s*", "", element, flags=re.DOTALL)
    return re.sub(r'\s(?:width|height)="[\d.]+pt"', "", element, count=2).strip()


def curve(train: Sequence[tuple[float, float]], validation: Sequence[tuple[float, float]]) -> str:
    """Loss by step (each step, and their running mean) and, on an axis of its own, the validation's bits per byte."""
    with _drawing(7.2, 3.0) as (_, axes, svg):
        steps, losses = [x for x, _ in train], [y for _, y in train]
        axes.plot(steps, losses, color=BLUE, alpha=0.25, linewidth=0.8)
        lines = axes.plot(steps, _smoothed(losses), color=BLUE, linewidth=1.8, label="training, smoothed (left)")
        if validation:
            right = axes.twinx()
            right.spines["right"].set_visible(True)
            right.grid(visible=False)
            right.set_ylabel("bits per byte", color=ORANGE)
            lines += right.plot(
                *zip(*validation, strict=True),
                color=ORANGE,
                linewidth=1.8,
                marker="o",
                markersize=3,
                label="validation (right)",
            )
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats per token)")
        axes.legend(handles=lines, loc="upper right")
        axes.margins(x=0.01)
    return svg[0]


def _smoothed(values: Sequence[float]) -> list[float]:
    found: list[float] = []
    mean, weight = 0.0, 0.0
    keep = 1 - 1 / max(1.0, len(values) / 40)
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        found.append(mean / weight)
    return found


def bars(rows: Sequence[tuple[str, float, tuple[float, float] | None, str]]) -> str:
    """Rates from 0 to 1 with their intervals, top to bottom: (label, rate, interval, colour)."""
    with _drawing(7.2, 0.5 + 0.42 * len(rows)) as (_, axes, svg):
        for place, (_, rate, interval, colour) in enumerate(rows):
            axes.barh(place, rate, color=colour, height=0.62)
            end = rate
            if interval is not None:
                low, high = interval
                axes.plot([low, high], [place, place], color=INK, linewidth=1.1, marker="|", markersize=6)
                end = max(rate, high)
            axes.text(end + 0.012, place, f"{rate:.1%}", va="center")
        axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.08)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.set_xlabel("share of the tasks; a line is the interval")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
    return svg[0]


def spread(values: Sequence[float], weights: Sequence[float], mean: float) -> str:
    """How bits per byte are spread over documents, weighted by their size."""
    with _drawing(7.2, 2.4) as (_, axes, svg):
        axes.hist(values, bins=40, weights=[weight / 1000 for weight in weights], color=BLUE, alpha=0.85)
        axes.axvline(mean, color=ORANGE, linewidth=1.8)
        axes.text(mean, axes.get_ylim()[1], f" all text {mean:.3f}", color=ORANGE, va="top")
        axes.set_xlabel("bits per byte of a document")
        axes.set_ylabel("kB of text")
    return svg[0]


def changes(rows: Sequence[tuple[str, float, float, float, str]]) -> str:
    """Differences with their intervals around nought: (label, delta, low, high, verdict)."""
    colours = {"improved": GREEN, "worse": RED}
    with _drawing(7.2, 0.55 + 0.42 * len(rows)) as (_, axes, svg):
        axes.axvline(0, color=MUTED, linewidth=1)
        for place, (_, delta, low, high, verdict) in enumerate(rows):
            colour = colours.get(verdict, GREY)
            axes.plot([low, high], [place, place], color=colour, linewidth=2.4, solid_capstyle="round")
            axes.plot([delta], [place], color=colour, marker="o", markersize=6)
        axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("difference to the previous version (in bits per byte, or of the share of the tasks)")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.margins(x=0.08)
    return svg[0]
