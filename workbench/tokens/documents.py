"""Documents of a dataset, read by byte ranges, so that each worker reads its own part of a file of any size.

A split is a JSON lines file whose lines have ``id`` and ``text``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workbench.domain.errors import NotFound
from workbench.domain.reading import Limits, load_json, record, text

RANGE_BYTES = 1 << 20
_LIMITS = Limits(size_bytes=64 << 20)
_HINT = "run `workbench verify` on the dataset"


@dataclass(frozen=True)
class Document:
    id: str
    text: str


_DOCUMENT = record(Document, more=True, id=text(), text=text(most=_LIMITS.size_bytes))


@dataclass(frozen=True)
class Range:
    """Whole lines of a file: bytes ``start`` to ``end``."""

    path: Path
    start: int
    end: int


def split_file(folder: Path, split: str) -> Path:
    path = folder / f"{split}.jsonl"
    if not path.is_file():
        raise NotFound(f"the dataset has no {path.name}", "give the payload of a dataset")
    return path


def ranges(path: Path, size: int = RANGE_BYTES) -> list[Range]:
    """The file in ranges of about ``size`` bytes. They depend on the file alone, not on who reads them."""
    length = path.stat().st_size
    found = []
    start = 0
    with path.open("rb") as file:
        while start < length:
            file.seek(min(start + size, length))
            file.readline()
            end = file.tell()
            found.append(Range(path, start, end))
            start = end
    return found


def read(part: Range) -> Iterator[Document]:
    with part.path.open("rb") as file:
        file.seek(part.start)
        while file.tell() < part.end:
            at = file.tell()
            line = file.readline()
            yield load_json(line, _DOCUMENT, what=f"{part.path.name} at byte {at}", limits=_LIMITS, hint=_HINT)
