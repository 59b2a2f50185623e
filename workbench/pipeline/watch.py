"""What people and programs see of a walk: its events, the protocol of those who watch, and two renderers.

``JsonWatcher`` writes one object a line, which ``decode`` gives back as an event; ``PlainWatcher`` writes lines for
logs and pipes. A live table in a terminal is an entrance's matter (``cli``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TextIO

from workbench.domain.events import Progress
from workbench.domain.printable import one_line
from workbench.domain.reading import (
    BadInput,
    Shape,
    flag,
    mapping,
    nullable,
    number,
    optional,
    parse_json,
    record,
    text,
)

SELDOM_MS = 60_000  # between two lines of a long step's progress


@dataclass(frozen=True)
class RunStarted:
    run: str
    subject: str
    steps: Mapping[str, str] = field(default_factory=dict)  # stage -> why, in order


@dataclass(frozen=True)
class StepStarted:
    stage: str
    why: str
    resumed: bool = False  # from a checkpoint


@dataclass(frozen=True)
class StepProgress:
    stage: str
    done: float
    total: float | None = None
    unit: str = ""
    rates: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, stage: str, progress: Progress) -> StepProgress:
        return cls(stage, progress.done, progress.total, progress.unit, progress.rates)


@dataclass(frozen=True)
class StepLine:
    stage: str
    text: str


@dataclass(frozen=True)
class StepCheckpoint:
    stage: str


@dataclass(frozen=True)
class StepEnded:
    stage: str
    state: str
    artifact: str = ""
    why: str = ""  # why it was reused, or why the version took this step
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class RunEnded:
    run: str
    state: str
    error: str = ""
    seconds: float = 0.0


WalkEvent = RunStarted | StepStarted | StepProgress | StepLine | StepCheckpoint | StepEnded | RunEnded
_LONG = text(most=1 << 20)
_SHAPES: Mapping[str, Shape[Any]] = {
    "run_started": record(RunStarted, run=text(), subject=_LONG, steps=optional(mapping(_LONG), {})),
    "step_started": record(StepStarted, stage=text(), why=_LONG, resumed=optional(flag(), False)),
    "step_progress": record(
        StepProgress,
        stage=text(),
        done=number(),
        total=optional(nullable(number()), None),
        unit=optional(text(), ""),
        rates=optional(mapping(number()), {}),
    ),
    "step_line": record(StepLine, stage=text(), text=_LONG),
    "step_checkpoint": record(StepCheckpoint, stage=text()),
    "step_ended": record(
        StepEnded,
        stage=text(),
        state=text(),
        artifact=optional(text(), ""),
        why=optional(_LONG, ""),
        error=optional(_LONG, ""),
        seconds=optional(number(), 0.0),
    ),
    "run_ended": record(RunEnded, run=text(), state=text(), error=optional(_LONG, ""), seconds=optional(number(), 0.0)),
}
_KINDS: Mapping[type[WalkEvent], str] = {
    RunStarted: "run_started",
    StepStarted: "step_started",
    StepProgress: "step_progress",
    StepLine: "step_line",
    StepCheckpoint: "step_checkpoint",
    StepEnded: "step_ended",
    RunEnded: "run_ended",
}


class Watcher(Protocol):
    """Whoever follows a walk. What it raises ends the walk, so it raises nothing that it can handle."""

    def on(self, event: WalkEvent) -> None: ...


def encode(event: WalkEvent) -> str:
    """One line of ASCII, whatever the reader's encoding, without the newline."""
    return json.dumps({"event": _KINDS[type(event)], **asdict(event)})


def decode(line: str) -> WalkEvent | None:
    """The event; None for a line that is none (cut off, or of a newer workbench)."""
    try:
        raw = parse_json(line.encode("utf-8", "surrogatepass"))
        kind = raw.pop("event", None) if isinstance(raw, dict) else None
        event: WalkEvent | None = _SHAPES[kind].read(raw, "") if isinstance(kind, str) and kind in _SHAPES else None
        return event
    except BadInput:
        return None


class Silent:
    """Watches and says nothing."""

    def on(self, event: WalkEvent) -> None:
        return


@dataclass(frozen=True)
class Several:
    """Passes each event on to all."""

    watchers: Iterable[Watcher]

    def on(self, event: WalkEvent) -> None:
        for watcher in self.watchers:
            watcher.on(event)


@dataclass(frozen=True)
class JsonWatcher:
    """One JSON object a line, flushed at once. A reader that has gone away ends nothing."""

    out: TextIO

    def on(self, event: WalkEvent) -> None:
        _write(self.out, encode(event))


@dataclass
class PlainWatcher:
    """Lines for logs and pipes: the beginning and the end of each step, its log, and its progress.

    Of a step's progress the first line comes after ``every_ms``, the next after twice that, and so on up to a minute: a
    short step is followed closely and a long one does not fill the screen.
    """

    out: TextIO
    now_ms: Callable[[], int]
    every_ms: int = 5000
    _shown_ms: int = field(default=0, init=False)
    _next_ms: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._next_ms = self.every_ms

    def on(self, event: WalkEvent) -> None:
        if isinstance(event, StepProgress):
            now_ms = self.now_ms()
            if now_ms - self._shown_ms < self._next_ms:
                return
            self._shown_ms, self._next_ms = now_ms, min(2 * self._next_ms, SELDOM_MS)
        elif isinstance(event, StepStarted):
            self._shown_ms, self._next_ms = self.now_ms(), self.every_ms
        text = describe(event)
        if text:
            _write(self.out, _indented(text) if isinstance(event, StepEnded | RunEnded) else one_line(text))


def _indented(text: str) -> str:
    """An ending with its error, which has several lines: none of them can be taken for an event's own."""
    first, *rest = map(one_line, text.split("\n"))
    return "\n".join((first, *(line if line.startswith("  ") else f"  {line}" for line in rest)))


def describe(event: WalkEvent) -> str:
    """One line for people, and the error of what has failed; empty for what is not worth one."""
    if isinstance(event, RunStarted):
        return f"run {event.run}  {event.subject}, {len(event.steps)} {'step' if len(event.steps) == 1 else 'steps'}"
    if isinstance(event, StepStarted):
        return f"{event.stage:<10} runs: {event.why}" + (" (resumed from its checkpoint)" if event.resumed else "")
    if isinstance(event, StepProgress):
        return f"{event.stage:<10} {amount(event)}"
    if isinstance(event, StepLine):
        return f"{event.stage:<10} | {event.text}"
    if isinstance(event, StepEnded):
        rest = [event.artifact, event.why, event.error]
        took = f" in {event.seconds:.1f} s" if event.seconds else ""
        return f"{event.stage:<10} {event.state}{took}" + "".join(f"  {text}" for text in rest if text)
    if isinstance(event, RunEnded):
        return f"run {event.run}  {event.state} in {event.seconds:.1f} s" + (f": {event.error}" if event.error else "")
    return ""


def amount(event: StepProgress) -> str:
    """``120 / 400 files  3.1 MB/s``."""
    of = f" / {_short(event.total)}" if event.total is not None else ""
    return f"{_short(event.done)}{of} {event.unit}  {rates(event)}".rstrip()


def rates(event: StepProgress) -> str:
    """``3.1 MB/s  12,345 tokens/s``."""
    return "  ".join(f"{_short(value)} {name}" for name, value in event.rates.items())


def _short(value: float) -> str:
    """Four figures of a small number, all whole ones of a large one."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def _write(out: TextIO, line: str) -> None:
    try:
        try:
            out.write(line + "\n")
        except UnicodeEncodeError:  # a terminal of another encoding
            out.write(line.encode("ascii", "backslashreplace").decode() + "\n")
        out.flush()
    except (OSError, ValueError):
        return  # whoever read it has gone, or has no room; the walk goes on
