"""Shard files lose no token, and a reader sees every token's successor where there is one to learn."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.domain.errors import Corrupt, NotFound
from workbench.tokens.shards import ShardIndex, ShardWriter, SplitReader

BEGIN, END, PAD = 1, 2, 3


def write(
    folder: Path, documents: list[list[int]], context: int = 4, rows: int = 2, vocab_size: int = 100
) -> ShardIndex:
    index = ShardIndex(vocab_size, context, PAD, BEGIN, END, "0" * 64, {})
    writer = ShardWriter(folder, "train", index, rows_per_file=rows)
    for ids in documents:
        writer.add(np.array(ids, np.uint32), documents=1, size_bytes=len(ids))
    found = ShardIndex(vocab_size, context, PAD, BEGIN, END, "0" * 64, {"train": writer.finish()}, {"rate": 0.5})
    found.save(folder)
    return found


@given(
    documents=st.lists(st.lists(st.integers(4, 99), max_size=20), max_size=12),
    context=st.integers(1, 7),
    rows=st.integers(1, 4),
)
def test_plain_text_is_one_stream_through_all_rows_and_files(
    documents: list[list[int]], context: int, rows: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        index = write(Path(name), documents, context, rows)
        reader = SplitReader(Path(name), "train")
        stream = [id for ids in documents for id in ids]
        assert index.splits["train"].tokens == len(stream)
        assert len(list(Path(name).glob("train-*.bin"))) == -(-len(stream) // (context * rows))
        if not stream:
            assert reader.rows == 0
            return
        x, y = reader.read(range(reader.rows))
        flat = x.flatten().tolist()
        assert flat[: len(stream)] == stream
        assert flat[len(stream) :] == [PAD] * (-len(stream) % context)
        assert y.flatten().tolist() == [*flat[1:], PAD]


def test_nothing_is_learnt_of_what_follows_by_chance(tmp_path: Path) -> None:
    """The plain text goes on at the beginning of the next row, past the spans that stand between."""
    index = ShardIndex(100, 8, PAD, BEGIN, END, "0" * 64, {})
    writer = ShardWriter(tmp_path, "train", index, rows_per_file=9)
    spans = [np.array([BEGIN, 50, END]), np.array([BEGIN, 60, 61, 62, END])]
    writer.add(np.array([BEGIN, *range(10, 21), END]), documents=1, size_bytes=1)
    writer.add(np.array([BEGIN, 30, END]), spans, documents=2, size_bytes=1)
    replaced = ShardIndex(100, 8, PAD, BEGIN, END, "0" * 64, {"train": writer.finish()})
    replaced.save(tmp_path)
    x, y = SplitReader(tmp_path, "train").read(range(3))
    assert x.tolist() == [
        [BEGIN, 10, 11, 12, 13, 14, 15, 16],
        [BEGIN, 60, 61, 62, END, BEGIN, 50, END],
        [17, 18, 19, 20, END, BEGIN, 30, END],
    ]
    assert y.tolist() == [
        [10, 11, 12, 13, 14, 15, 16, PAD],  # 17 follows, but not in the next row
        [60, 61, 62, END, PAD, 50, END, PAD],
        [18, 19, 20, END, PAD, 30, END, PAD],
    ]


def test_shards_of_the_first_format_are_read_as_they_were(tmp_path: Path) -> None:
    write(tmp_path, [[BEGIN, 5, END], [BEGIN, 6, END]])
    path = tmp_path / "index.json"
    raw = json.loads(path.read_text()) | {"format": 1}
    path.write_text(json.dumps({name: value for name, value in raw.items() if name not in ("begin", "end")}))
    _, y = SplitReader(tmp_path, "train").read([0])
    assert y.tolist() == [[5, END, BEGIN, 6]]


def test_ids_beyond_sixteen_bits_take_four_bytes(tmp_path: Path) -> None:
    write(tmp_path, [[70_000, 5, 6]], vocab_size=80_000)
    x, _ = SplitReader(tmp_path, "train").read([0])
    assert x.tolist() == [[70_000, 5, 6, PAD]]
    assert json.loads((tmp_path / "index.json").read_text())["dtype"] == "uint32"
    assert (tmp_path / "train-00000.bin").read_bytes()[:4] == (70_000).to_bytes(4, "little")


def test_the_index_comes_back(tmp_path: Path) -> None:
    assert write(tmp_path, [[5, 6, 7, 8, 9]]) == ShardIndex.load(tmp_path)


def test_a_missing_split_names_those_that_there_are(tmp_path: Path) -> None:
    write(tmp_path, [[5, 6]])
    with pytest.raises(NotFound, match="they have train"):
        SplitReader(tmp_path, "test")


def test_a_truncated_shard_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [[5, 6, 7, 8]])
    file = tmp_path / "train-00000.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Corrupt, match="train-00000"):
        SplitReader(tmp_path, "train")


@pytest.mark.parametrize("change", [{"format": 3}, {"begin": None}, {"splits": 3}, {"splits": {"train": {}}}])
def test_an_index_of_another_shape_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write(tmp_path, [[5, 6]])
    path = tmp_path / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(Corrupt):
        ShardIndex.load(tmp_path)


def test_no_index_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"index\.json"):
        ShardIndex.load(tmp_path)
