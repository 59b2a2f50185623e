"""Canonical JSON lines: sorted keys, UTF-8, one ``\\n`` after each object; read and written a line at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.domain.canonical import canonical_json
from workbench.domain.errors import Corrupt
from workbench.domain.reading import BadInput, Limits, parse_json

LINE_BYTES = 64 << 20  # no row of ours is larger; a line that is, is not ours
LIMITS = Limits(size_bytes=LINE_BYTES)


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """The number of rows; the order is the caller's."""
    count = 0
    with path.open("wb") as out:
        for row in rows:
            out.write(canonical_json(row) + b"\n")
            count += 1
    return count


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Each row as it stands. Corrupt where a line is no object, is too long or the last one is cut short."""
    if not path.is_file():
        raise Corrupt(f"{path.name} is missing", "give the payload folder of an artifact that this workbench made")
    with path.open("rb") as lines:
        number = 0
        while line := lines.readline(LINE_BYTES):
            number += 1
            try:
                row = parse_json(line, LIMITS)
            except BadInput as bad:
                raise Corrupt(f"{path.name}, line {number}: {bad}", "run `workbench verify` on the artifact") from None
            if not isinstance(row, dict) or not line.endswith(b"\n"):
                raise Corrupt(
                    f"{path.name}, line {number} is no whole object", "run `workbench verify` on the artifact"
                )
            yield row
