"""The difference of two artifacts: every section that a manifest has, and nothing that is the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workbench.domain.ids import Digest, ObjectId
from workbench.domain.manifest import FileEntry, InputEntry, Manifest
from workbench.domain.refs import Kind
from workbench.versions.diff import diff

BASE = Manifest(
    Kind.MODEL,
    "rust",
    files=(FileEntry("a.txt", Digest("a" * 64), 3), FileEntry("b.txt", Digest("b" * 64), 4)),
    inputs=(InputEntry(Kind.SHARDS, "rust", ObjectId("1" * 40)),),
    params={"steps": 5, "rate": 0.1},
    environment={"torch": "1"},
    code="c" * 64,
    counts={"steps": 5},
    metrics={"loss": 2.0},
)


def test_the_same_has_no_difference() -> None:
    assert diff(BASE, BASE) == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"params": {"steps": 6, "rate": 0.1}}, {"params": {"steps": [5, 6]}}),
        ({"params": {"steps": 5}}, {"params": {"rate": [0.1, None]}}),
        ({"seed": 3}, {"seed": {"seed": [0, 3]}}),
        ({"code": "d" * 64}, {"code": {"code": ["c" * 64, "d" * 64]}}),
        ({"environment": {"torch": "2", "numpy": "1"}}, {"environment": {"numpy": [None, "1"], "torch": ["1", "2"]}}),
        ({"counts": {"steps": 6}}, {"counts": {"steps": [5, 6]}}),
        ({"metrics": {"loss": 1.5}}, {"metrics": {"loss": [2.0, 1.5]}}),
        (
            {"inputs": (InputEntry(Kind.SHARDS, "rust", ObjectId("2" * 40)),)},
            {"inputs": {"shards/rust": ["1" * 40, "2" * 40]}},
        ),
        (
            {"files": (FileEntry("a.txt", Digest("e" * 64), 3), FileEntry("c.txt", Digest("b" * 64), 4))},
            {"files": {"a.txt": [3, 3], "b.txt": [4, None], "c.txt": [None, 4]}},
        ),
    ],
)
def test_each_section_tells_what_changed(change: dict[str, object], told: dict[str, object]) -> None:
    assert diff(BASE, replace(BASE, **change)) == told  # type: ignore[arg-type]
