"""Packing loses no token, and a reader sees every token's successor."""

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

PAD = 3


def write(
    folder: Path, documents: list[list[int]], context: int = 4, rows: int = 2, vocab_size: int = 100
) -> ShardIndex:
    index = ShardIndex(vocab_size, context, PAD, "0" * 64, {})
    writer = ShardWriter(folder, "train", dtype=index.dtype, context=context, pad=PAD, rows_per_file=rows)
    for ids in documents:
        writer.add(np.array(ids, np.uint32), documents=1, size_bytes=len(ids))
    found = ShardIndex(vocab_size, context, PAD, "0" * 64, {"train": writer.finish()}, {"rate": 0.5})
    found.save(folder)
    return found


@given(
    documents=st.lists(st.lists(st.integers(4, 99), max_size=20), max_size=12),
    context=st.integers(1, 7),
    rows=st.integers(1, 4),
)
def test_packing_loses_no_token_and_adds_only_padding(documents: list[list[int]], context: int, rows: int) -> None:
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


@pytest.mark.parametrize("change", [{"format": 2}, {"splits": 3}, {"splits": {"train": {}}}])
def test_an_index_of_another_shape_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write(tmp_path, [[5, 6]])
    path = tmp_path / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(Corrupt):
        ShardIndex.load(tmp_path)


def test_no_index_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"index\.json"):
        ShardIndex.load(tmp_path)
