"""How answers look: a table or lines for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workbench.domain.printable import one_line, printable, printable_json


def emit_json(value: Any) -> None:
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False)
    sys.stdout.write(printable_json(text) + "\n")


def emit(text: str = "") -> None:
    """A line or more for people: whoever wrote it, the terminal shows it and does not obey it."""
    sys.stdout.write(printable(text) + "\n")


def warn(text: str) -> None:
    """A line on standard error, if there is anything to say."""
    if text:
        sys.stderr.write(f"note: {printable(text)}\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Left-aligned columns in a terminal or a file; no borders, a row a line, so that it can be cut and grepped."""
    cells = [[one_line(str(cell)) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    for row in [list(columns), *cells]:
        emit("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def fields(values: Mapping[str, Any]) -> None:
    """``key  value`` lines; nested values as compact JSON."""
    shown = {key: value for key, value in values.items() if value not in ("", None, {}, [], ())}
    width = max((len(key) for key in shown), default=0)
    for key, value in shown.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        emit(f"{key:<{width}}  {text}")


def emit_made(text: str, end: str = "") -> None:
    """What a model wrote: byte for byte into a file or a pipe, and shown in a terminal."""
    sys.stdout.write((printable(text) if sys.stdout.isatty() else text) + end)
    sys.stdout.flush()


def size(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024 or unit == "GiB":
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    raise AssertionError


def when(time_ms: int) -> str:
    import datetime

    if not time_ms:
        return "-"
    return datetime.datetime.fromtimestamp(time_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
