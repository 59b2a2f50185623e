"""From completions and verdicts to rows, from rows to figures. Pure but for reading the previous version's files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from math import exp, log
from pathlib import Path
from typing import Any

from workbench.domain.errors import Corrupt
from workbench.domain.reading import BadInput, UnknownFormat, anything, check_format, mapping, parse_json
from workbench.stages.evaluate.model import Bits, Completion
from workbench.stages.evaluate.params import EvaluateParams
from workbench.stages.evaluate.scores import Compared, Measured, compare, pass_at_k, rate, wilson
from workbench.stages.evaluate.tasks import Task

FORMAT = 1
LAYOUTS = ("psm", "spm")
PASS_AT = (1, 2, 3, 5, 10, 20, 50, 100)
Row = dict[str, Any]


def key(task: str, layout: str, sample: int) -> str:
    return f"{task}/{layout}/{sample}"


def rows(
    line: Sequence[Task],
    snippet: Sequence[Task],
    completions: Mapping[str, Completion],
    measured: Sequence[Bits],
    compiles: Mapping[str, bool],
) -> list[Row]:
    """Everything that was asked and answered, one row each, in a fixed order."""
    found: list[Row] = [
        {"kind": "document", "id": bits.id, "bits": bits.bits, "bytes": bits.bytes, "tokens": bits.tokens}
        for bits in sorted(measured, key=lambda bits: bits.id)
    ]
    found += [_task_row("line", task) for task in line]
    found += [_task_row("compile", task) for task in snippet]
    asked = {task.id: ("line", task) for task in line} | {task.id: ("compile", task) for task in snippet}
    for id, layout, sample, answer in sorted(
        ((*_parts(name), answer) for name, answer in completions.items()), key=lambda part: part[:3]
    ):
        kind, task = asked[id]
        row = _completion_row(task, layout, sample, answer)
        if kind == "compile":
            row["compiles"] = compiles[task.filled(answer.text)]
        found.append({"kind": kind, **row})
    found += [{"kind": "control", "task": task.id, "compiles": compiles[task.filled("")]} for task in snippet]
    return found


def _parts(name: str) -> tuple[str, str, int]:
    task, layout, sample = name.split("/")
    return task, layout, int(sample)


def _task_row(kind: str, task: Task) -> Row:
    return {
        "kind": "task",
        "set": kind,
        "task": task.id,
        "document": task.document,
        "prefix": task.prefix,
        "middle": task.middle,
        "suffix": task.suffix,
    }


def _completion_row(task: Task, layout: str, sample: int, answer: Completion) -> Row:
    return {
        "task": task.id,
        "layout": layout,
        "sample": sample,
        "completion": answer.text,
        "tokens": answer.tokens,
        "ended": answer.ended,
        "exact": answer.text.strip() == task.middle.strip(),
        "similarity": round(SequenceMatcher(None, answer.text, task.middle, autojunk=False).ratio(), 4),
    }


def metrics(
    rows: Sequence[Row], facts: Mapping[str, Any], params: EvaluateParams, *, seed: int, previous: Path | None
) -> Row:
    """``metrics.json``: figures with intervals and controls and, after a first version, the comparison."""
    confidence = params.confidence
    return {
        "format": FORMAT,
        "split": params.split,
        "confidence": confidence,
        "likelihood": _likelihood([row for row in rows if row["kind"] == "document"], facts),
        "fim": {layout: _fim(_greedy(rows, "line", layout), confidence) for layout in LAYOUTS},
        "compile": _compile(rows, facts, params),
        "comparison": _comparison(rows, params, seed, previous),
    }


def headline(metrics: Row) -> Row:
    """The few figures that the manifest carries; None is left out, not written as nought."""
    compile = metrics["compile"]
    found = {
        "bits_per_byte": metrics["likelihood"]["bits_per_byte"],
        "perplexity": metrics["likelihood"]["perplexity"],
        "fim_exact_match": metrics["fim"]["psm"]["exact_match"],
        "compile_rate": compile["compile_rate"],
        **{f"compile_pass_at_{k}": value for k, value in compile["pass_at"].items()},
    }
    return {name: value for name, value in found.items() if value is not None}


def _likelihood(documents: Sequence[Row], facts: Mapping[str, Any]) -> Row:
    bits, size, tokens = (sum(row[name] for row in documents) for name in ("bits", "bytes", "tokens"))
    return {
        "bits_per_byte": round(bits / size, 6),
        "control_bits_per_byte": facts["control_bits_per_byte"],  # what a figure must beat
        "perplexity": round(exp(bits * log(2) / tokens), 4),  # of a token: not comparable between tokenizers
        "bytes_per_token": round(size / tokens, 4),
        "documents": len(documents),
        "bytes": size,
        "tokens": tokens,
    }


def _greedy(rows: Iterable[Row], kind: str, layout: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind and row["layout"] == layout and row["sample"] == 0]


def _fim(answers: Sequence[Row], confidence: float) -> Row:
    exact = [row["exact"] for row in answers]
    return {
        "tasks": len(answers),
        "exact_match": rate(exact),
        "exact_match_interval": wilson(sum(exact), len(exact), confidence),
        "similarity": _mean([row["similarity"] for row in answers]),
        "ended_rate": rate([row["ended"] for row in answers]),
    }


def _compile(rows: Sequence[Row], facts: Mapping[str, Any], params: EvaluateParams) -> Row:
    greedy = _greedy(rows, "compile", "psm")
    passed = [row["compiles"] for row in greedy]
    exact = [row["exact"] for row in greedy]
    control = [row["compiles"] for row in rows if row["kind"] == "control"]
    counts = drawn(rows)
    return {
        "refused": facts["compile_refused"],
        "snippets_tried": facts["snippets_tried"],
        "snippets_standing": facts["snippets_standing"],
        "tasks": len(greedy),
        "compile_rate": rate(passed),
        "compile_rate_interval": wilson(sum(passed), len(passed), params.confidence),
        "exact_match": rate(exact),
        "control_compile_rate": rate(control),  # of nothing at all in the gap: what a figure must beat
        "samples": params.samples if counts else 0,
        "temperature": params.temperature,
        "pass_at": {
            str(k): _mean([pass_at_k(n, c, k) for n, c in counts.values()])
            for k in PASS_AT
            if counts and k <= params.samples
        },
    }


def drawn(rows: Iterable[Row]) -> dict[str, tuple[int, int]]:
    """By snippet: how many completions were drawn, and how many of them compile."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        if row["kind"] == "compile" and row["sample"] > 0:
            n, c = found.get(row["task"], (0, 0))
            found[row["task"]] = (n + 1, c + row["compiles"])
    return found


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None


def _comparison(rows: Sequence[Row], params: EvaluateParams, seed: int, previous: Path | None) -> Row | None:
    """None for a first version; the reason where the previous one cannot be compared with."""
    if previous is None:
        return None
    try:
        check_format(_ROW.read(parse_json((previous / "metrics.json").read_bytes()), ""), (FORMAT,))
        old = [_ROW.read(parse_json(line), "") for line in (previous / "samples.jsonl").read_bytes().splitlines()]
        pairs = [(name, measured(old, name), measured(rows, name)) for name in COMPARED]
    except UnknownFormat as other:
        return {"refused": f"the previous metrics have {other}", "rows": []}
    except (OSError, BadInput, KeyError, TypeError) as error:  # a figure that is no number, or not there
        raise Corrupt(f"the previous metrics cannot be read: {error!r}", "verify that version, or delete it") from error
    found = [_compare(name, old, new, params, seed) for name, old, new in pairs]
    present = [compared.to_json() for compared in found if compared is not None]
    return {"refused": "" if present else "the two versions were asked nothing in common", "rows": present}


_ROW = mapping(anything())


def _compare(name: str, old: Measured, new: Measured, params: EvaluateParams, seed: int) -> Compared | None:
    return compare(
        name,
        old,
        new,
        lower_is_better=name == "bits_per_byte",
        seed=seed,
        resamples=params.resamples,
        confidence=params.confidence,
    )


COMPARED = ("bits_per_byte", "fim_exact_match_psm", "fim_exact_match_spm", "compile_rate", "compile_pass_at_1")


def measured(rows: Iterable[Row], metric: str) -> dict[str, tuple[float, float]]:
    """By document or task, what a figure is made of: (sum, weight)."""
    rows = list(rows)
    if metric == "bits_per_byte":
        return {row["id"]: (row["bits"], row["bytes"]) for row in rows if row["kind"] == "document"}
    if metric == "compile_pass_at_1":
        return {task: (c / n, 1.0) for task, (n, c) in drawn(rows).items()}
    if metric == "compile_rate":
        return {row["task"]: (float(row["compiles"]), 1.0) for row in _greedy(rows, "compile", "psm")}
    layout = metric.removeprefix("fim_exact_match_")
    return {row["task"]: (float(row["exact"]), 1.0) for row in _greedy(rows, "line", layout)}
