"""Counts of a dataset by split, licence and package. Values in, a JSON value out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FORMAT = 1


@dataclass(frozen=True)
class Counted:
    """What is counted of one document."""

    split: str
    package: str
    license: str
    bytes: int
    lines: int
    characters: int


def statistics(counted: Sequence[Counted]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "total": _sum(counted),
        "splits": _by(counted, "split"),
        "licenses": _by(counted, "license"),
        "packages": _by(counted, "package"),
        "bytes_per_document": _quantiles([each.bytes for each in counted]),
    }


def _by(counted: Sequence[Counted], field: str) -> dict[str, Mapping[str, int]]:
    groups: dict[str, list[Counted]] = defaultdict(list)
    for each in counted:
        groups[getattr(each, field)].append(each)
    return {name: _sum(group) for name, group in sorted(groups.items())}


def _sum(counted: Sequence[Counted]) -> dict[str, int]:
    return {
        "documents": len(counted),
        "bytes": sum(each.bytes for each in counted),
        "characters": sum(each.characters for each in counted),
        "lines": sum(each.lines for each in counted),
    }


def _quantiles(sizes: Sequence[int]) -> dict[str, int]:
    """By the nearest rank, so that each is the size of a document."""
    ordered = sorted(sizes)
    last = len(ordered) - 1
    return {f"p{percent}": ordered[round(last * percent / 100)] for percent in (0, 10, 25, 50, 75, 90, 99, 100)}
