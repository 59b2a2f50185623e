"""Ranges cover a file whatever their size, and hold whole documents."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.domain.errors import Corrupt, NotFound
from workbench.tokens.documents import Document, ranges, read, split_file


@given(texts=st.lists(st.text(max_size=40), max_size=20), size=st.integers(1, 400), ascii=st.booleans())
def test_every_document_is_in_exactly_one_range(texts: list[str], size: int, ascii: bool) -> None:
    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "train.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=ascii) + "\n" for row in rows), "utf-8", newline="\n")
        found = [document for part in ranges(path, size) for document in read(part)]
    assert found == [Document(row["id"], row["text"]) for row in rows]


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"id": "a"}', '{"id": "a", "text": "\\ud800"}', "\xff", '{"id": 1, "text": 2}']
)
def test_a_line_that_is_no_document_is_corrupt_and_says_where(tmp_path: Path, line: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"id": "a", "text": "b"}\n' + line.encode("latin-1") + b"\n")
    with pytest.raises(Corrupt, match="at byte 25"):
        [document for part in ranges(path) for document in read(part)]


def test_a_missing_split_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"train\.jsonl"):
        split_file(tmp_path, "train")
