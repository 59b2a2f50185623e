"""The lines a stage writes to standard output, one JSON object each. Not here: the pipe.

``{"event": "progress", "done": 12.0, "total": 40.0, "unit": "files", "rates": {"MB/s": 3.1}}``
``{"event": "log", "text": "…"}``
``{"event": "checkpoint", "folder": "/…"}``: the runner answers ``ok`` and a newline on the stage's standard input once
the folder is committed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.domain.reading import BadInput, Shape, mapping, nullable, number, optional, parse_json, record, text


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
        whole_characters = event.text.encode("utf-8", "backslashreplace").decode()  # names of files are any bytes
        return json.dumps({"event": "log", "text": whole_characters})
    return json.dumps({"event": "checkpoint", "folder": event.folder})


def decode(line: str) -> StageEvent:
    """An event; a line that is none is a log line as it stands. An amount that is no finite number makes it none."""
    try:
        raw = parse_json(line.encode("utf-8", "surrogatepass"))
        kind = raw.get("event") if isinstance(raw, dict) else None
        if not isinstance(kind, str):
            raise BadInput("it names no event")
        event: StageEvent = _EVENTS.get(kind, _LOG).read(raw, "")
        return event
    except BadInput:
        return Log(line.rstrip("\n"))


_LOG = record(Log, more=True, text=text(most=1 << 20))
_EVENTS: Mapping[str, Shape[Any]] = {
    "progress": record(
        Progress,
        more=True,
        done=number(),
        total=optional(nullable(number()), None),
        unit=optional(text(), ""),
        rates=optional(mapping(number()), {}),
    ),
    "checkpoint": record(Checkpoint, more=True, folder=text()),
}
