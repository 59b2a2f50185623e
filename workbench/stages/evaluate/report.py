"""``report.html``: one page that a person reads, whole in itself (no script, no address of anything outside)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from workbench.domain.reading import Shape, load_json, nullable, number, optional, record, whole
from workbench.stages.evaluate import plots
from workbench.stages.evaluate.plots import BLUE, GREEN, GREY

Row = Mapping[str, Any]
SHOWN = 4  # completions of each kind
EDGE_LINES = 6  # of a prompt, around the gap
LONGEST_ANSWER = 12  # lines of a completion
_NAMES = {
    "bits_per_byte": "Bits per byte",
    "fim_exact_match_psm": "Exact match (PSM)",
    "fim_exact_match_spm": "Exact match (SPM)",
    "compile_rate": "Compile rate",
    "compile_pass_at_1": "Compile pass@1",
}
_CSS = """
:root { color-scheme: light; }
body { font: 15px/1.55 system-ui, sans-serif; color: #1f2933; background: #f5f7fa; margin: 0; }
main { max-width: 860px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 0 0 4px; }
p { margin: 0 0 12px; } .note { color: #66707c; font-size: 13.5px; }
section { background: #fff; border: 1px solid #e4e7eb; border-radius: 10px; padding: 20px 24px; margin: 18px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px; margin: 20px 0; }
.tile { background: #fff; border: 1px solid #e4e7eb; border-radius: 10px; padding: 14px 18px; }
.tile b { display: block; font-size: 28px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { color: #66707c; font-size: 13px; }
svg { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid #e4e7eb; }
th:first-child, td:first-child { text-align: left; } th { color: #66707c; font-weight: 500; }
.verdict { border-radius: 999px; padding: 1px 10px; font-size: 13px; background: #e4e7eb; }
.improved { background: #d8f0e3; color: #1d6b44; } .worse { background: #f9dcd8; color: #97281b; }
pre { font: 13px/1.5 ui-monospace, monospace; background: #f5f7fa; border-radius: 8px; padding: 12px 14px;
  overflow-x: auto; margin: 6px 0 16px; white-space: pre-wrap; overflow-wrap: anywhere; }
mark { border-radius: 3px; padding: 1px 2px; }
mark.exact { background: #bfe6d0; } mark.compiles { background: #cfe1f5; }
mark.fails { background: #f7d3cd; } .wanted { color: #66707c; }
"""


@dataclass(frozen=True)
class Curve:
    """As training logged it, by step."""

    train: Sequence[tuple[float, float]]  # loss, nats per token
    validation: Sequence[tuple[float, float]]  # bits per byte


def read_curve(model: Path) -> Curve:
    """From ``training.jsonl``; empty for a model that came without one."""
    path = model / "training.jsonl"
    if not path.is_file():
        return Curve((), ())
    lines = [line for line in path.read_bytes().splitlines() if line]
    hint = "verify the model, or delete it"
    points = [load_json(line, _POINT, what="a line of training.jsonl", hint=hint) for line in lines]
    train = [(point["step"], point["loss"]) for point in points if point["loss"] is not None]
    watched = "validation_bits_per_byte"
    validation = [(point["step"], point[watched]) for point in points if point[watched] is not None]
    return Curve(train, validation)


_FIGURE = optional(nullable(number()), None)
_POINT: Shape[dict[str, Any]] = record(dict, more=True, step=whole(), loss=_FIGURE, validation_bits_per_byte=_FIGURE)


def page(name: str, metrics: Row, rows: Sequence[Row], curve: Curve) -> str:
    """The whole page. The same figures give the same bytes."""
    parts = [_tiles(metrics), *_sections(metrics, rows, curve)]
    title = escape(f"Evaluation of {name}")
    text = metrics["likelihood"]
    lead = (
        f"Measured on {text['documents']:,} held-out documents ({_size(text['bytes'])}) of the "
        f"{metrics['split']} split. Intervals are {metrics['confidence']:.0%}."
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head>\n'
        f'<body><main><h1>{title}</h1><p class="note">{escape(lead)}</p>\n'
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _sections(metrics: Row, rows: Sequence[Row], curve: Curve) -> Iterator[str]:
    if metrics["comparison"] is not None:
        yield _comparison(metrics["comparison"])
    if curve.train:
        yield _section(
            "Training",
            "The loss of each step and its running mean; bits per byte of held-out text, estimated from a few rows.",
            plots.curve(curve.train, curve.validation),
        )
    yield _likelihood(metrics["likelihood"], rows)
    yield _fill(metrics)
    yield from _examples(rows)


def _section(title: str, note: str, body: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="note">{note}</p>{body}</section>'


def _tiles(metrics: Row) -> str:
    text, fim, compile = metrics["likelihood"], metrics["fim"]["psm"], metrics["compile"]
    tiles = [
        (
            f"{text['bits_per_byte']:.3f}",
            f"bits per byte (less is better; byte frequencies alone: {text['control_bits_per_byte']:.3f})",
        ),
        (f"{text['perplexity']:.2f}", f"perplexity of a token ({text['bytes_per_token']:.2f} bytes)"),
        (
            _percent(fim["exact_match"]),
            f"of {fim['tasks']} masked spans filled exactly{_between(fim['exact_match_interval'])}",
        ),
        (
            _percent(compile["compile_rate"]),
            f"of {compile['tasks']} filled snippets compile{_between(compile['compile_rate_interval'])}; "
            f"{_percent(compile['control_compile_rate'])} with the gap left empty",
        ),
    ]
    shown = (f'<div class="tile"><b>{value}</b><span>{escape(label)}</span></div>' for value, label in tiles)
    return f'<div class="tiles">{"".join(shown)}</div>'


def _likelihood(text: Row, rows: Sequence[Row]) -> str:
    documents = [row for row in rows if row["kind"] == "document"]
    note = (
        f"{text['tokens']:,} tokens of {text['bytes_per_token']:.2f} bytes, each predicted once from its own document. "
        "Bits per byte can be compared between tokenizers, perplexity cannot. The control knows nothing but how often "
        f"each byte comes in this very text: {text['control_bits_per_byte']:.3f}."
    )
    values = [row["bits"] / row["bytes"] for row in documents]
    plot = plots.spread(values, [row["bytes"] for row in documents], text["bits_per_byte"])
    return _section("How well it predicts", note, plot)


def _fill(metrics: Row) -> str:
    fim, compile = metrics["fim"], metrics["compile"]
    bars = [
        (f"exact, {layout.upper()}", fim[layout]["exact_match"], fim[layout]["exact_match_interval"], GREEN)
        for layout in fim
    ]
    bars += [
        ("compiles, greedy", compile["compile_rate"], compile["compile_rate_interval"], BLUE),
        ("compiles, empty gap", compile["control_compile_rate"], None, GREY),
    ]
    bars += [(f"compiles, pass@{k}", value, None, BLUE) for k, value in compile["pass_at"].items()]
    known = [bar for bar in bars if bar[1] is not None]
    note = "Whole statements and short bodies of functions are masked; the model fills the gap."
    if compile["tasks"]:
        note += (
            f" {compile['tasks']} snippets are compiled by rustc in the sandbox. Each one compiled before anything "
            f"was masked ({compile['snippets_standing']} of {compile['snippets_tried']} tried did); "
            "an empty gap is the control."
            f" pass@k is the unbiased estimate from {compile['samples']} completions drawn at temperature"
            f" {compile['temperature']:g}."
        )
    elif compile["refused"]:
        note += f" <b>Nothing was compiled</b>: {escape(compile['refused'])}."
    return _section("How well it fills in", note, plots.bars(known) if known else "")


def _comparison(comparison: Row) -> str:
    if not comparison["rows"]:
        return _section("Against the previous version", escape(comparison["refused"]), "")
    columns = ("", "previous", "this", "difference", "interval", "pairs", "verdict")
    head = "<tr>" + "".join(f"<th>{column}</th>" for column in columns) + "</tr>"
    lines = "".join(map(_compared, comparison["rows"]))
    changed = [(_NAMES[r["metric"]], r["delta"], r["low"], r["high"], r["verdict"]) for r in comparison["rows"]]
    note = "The same documents and tasks, asked of both; the interval is a paired bootstrap of the difference."
    return _section("Against the previous version", note, f"<table>{head}{lines}</table>{plots.changes(changed)}")


def _compared(row: Row) -> str:
    show = "{:.4f}".format if row["metric"] == "bits_per_byte" else "{:.1%}".format
    sign = "+" if row["delta"] >= 0 else "−"
    return (
        f"<tr><td>{_NAMES[row['metric']]}</td><td>{show(row['previous'])}</td><td>{show(row['current'])}</td>"
        f"<td>{sign}{show(abs(row['delta']))}</td><td>{show(row['low'])} … {show(row['high'])}</td>"
        f'<td>{row["pairs"]}</td><td><span class="verdict {row["verdict"]}">{row["verdict"]}</span></td></tr>'
    )


def _examples(rows: Sequence[Row]) -> Iterator[str]:
    """Greedy completions of each kind, the first ones in the order of their ids: chosen by nobody."""
    tasks = {row["task"]: row for row in rows if row["kind"] == "task"}
    greedy = [
        row for row in rows if row["kind"] in ("line", "compile") and row["sample"] == 0 and row["layout"] == "psm"
    ]
    compiled = [row for row in greedy if row["kind"] == "compile"]
    line = [row for row in greedy if row["kind"] == "line"]
    kinds = [
        ("Filled exactly", "exact", greedy, [row for row in greedy if row["exact"]]),
        ("Filled otherwise, and compiles", "compiles", compiled, _otherwise(compiled, compiles=True)),
        ("Does not compile", "fails", compiled, _otherwise(compiled, compiles=False)),
        ("Filled otherwise, not compiled", "fails", line, [row for row in line if not row["exact"]]),
    ]
    for title, mark, asked, chosen in kinds:
        if chosen:
            shown = "".join(_example(tasks[row["task"]], row, mark) for row in chosen[:SHOWN])
            yield _section(title, f"{len(chosen)} of {len(asked)}; the first {min(SHOWN, len(chosen))}.", shown)


def _otherwise(rows: Sequence[Row], *, compiles: bool) -> list[Row]:
    return [row for row in rows if row["compiles"] is compiles and not (compiles and row["exact"])]


def _example(task: Row, row: Row, mark: str) -> str:
    before = "\n".join(task["prefix"].split("\n")[-EDGE_LINES:])
    after = "\n".join(task["suffix"].split("\n")[:EDGE_LINES])
    wanted = "" if row["exact"] else f'<div class="note">expected: <code>{escape(task["middle"])}</code></div>'
    filled = escape(_shortened(row["completion"])) or "&nbsp;"
    return f'<pre>{escape(before)}<mark class="{mark}">{filled}</mark>{escape(after)}</pre>{wanted}'


def _shortened(completion: str) -> str:
    """A weak model may go on with one blank line after the other: as many are shown as tell it."""
    lines = completion.split("\n")
    if len(lines) <= LONGEST_ANSWER:
        return completion
    return "\n".join([*lines[:LONGEST_ANSWER], f"… and {len(lines) - LONGEST_ANSWER} lines more"])


def _between(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.0%} to {interval[1]:.0%})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
