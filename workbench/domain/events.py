"""The lines a stage writes to standard output, one JSON object each. Not here: the pipe.

``{"event": "progress", "done": 12.0, "total": 40.0, "unit": "files", "rates": {"MB/s": 3.1}}``
``{"event": "log", "text": "…"}``
``{"event": "checkpoint", "folder": "/…"}``: the runner answers ``ok`` and a newline on the stage's standard input once
the folder is committed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Progress:
    done: float
    total: float | None = None
    unit: str = ""
    rates: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Log:
    text: str


@dataclass(frozen=True)
class Checkpoint:
    folder: str


StageEvent = Progress | Log | Checkpoint


def encode(event: StageEvent) -> str:
    """One line, without the newline."""
    if isinstance(event, Progress):
        body = {"done": event.done, "total": event.total, "unit": event.unit, "rates": dict(event.rates)}
        return json.dumps({"event": "progress", **body})
    if isinstance(event, Log):
        return json.dumps({"event": "log", "text": event.text})
    return json.dumps({"event": "checkpoint", "folder": event.folder})


def decode(line: str) -> StageEvent:
    """An event; a line that is none is a log line as it stands. An amount that is no finite number makes it none."""
    try:
        raw = json.loads(line)
        kind = raw["event"]
        if kind == "progress":
            total = raw.get("total")
            rates = {str(k): _finite(v) for k, v in raw.get("rates", {}).items()}
            return Progress(
                _finite(raw["done"]), None if total is None else _finite(total), str(raw.get("unit", "")), rates
            )
        if kind == "checkpoint":
            return Checkpoint(str(raw["folder"]))
        return Log(str(raw["text"]))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return Log(line.rstrip("\n"))


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no amount")
    return number
