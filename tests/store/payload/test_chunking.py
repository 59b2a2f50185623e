"""Where files are cut: a pure function of bytes and name, at tensors, by content, or at fixed offsets."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.domain.errors import Refused
from workbench.store.payload import chunking
from workbench.store.payload.chunking import CHUNK_MAX, GROUP_MIN, MIB, TEXT_MIN, chunk_name, chunks


def cut(data: bytes, name: str) -> list[bytes]:
    return list(chunks(io.BytesIO(data), name, len(data)))


def sizes(data: bytes, name: str) -> list[int]:
    return [len(piece) for piece in cut(data, name)]


def safetensors(shapes: dict[str, int], *, note: str = "") -> bytes:
    """Tensors of so many bytes, filled from their names."""
    header: dict[str, Any] = {"__metadata__": {"note": note}}
    body = b""
    for name, size in shapes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [len(body), len(body) + size]}
        body += random.Random(name).randbytes(size)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


TEXT = b"".join(b"fn f%d() { let x = %d; }\n" % (n, n * n % 9973) for n in range(400_000))


class Trickle(io.BytesIO):
    """A stream whose reads are short, as a pipe's are."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(max(1, (size or 0) // 3))


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(0, 9 * MIB),
    name=st.sampled_from(["a.bin", "a.txt", "a.jsonl", "a.safetensors", "a.gguf", "a"]),
    stream=st.sampled_from([io.BytesIO, Trickle]),
)
def test_the_pieces_join_to_the_file_and_depend_on_nothing_else(
    seed: int, size: int, name: str, stream: type[io.BytesIO]
) -> None:
    data = random.Random(seed).randbytes(size)
    pieces = list(chunks(stream(data), name, size))
    assert b"".join(pieces) == data
    assert pieces == cut(data, name)
    assert all(0 < len(piece) <= CHUNK_MAX for piece in pieces)


def test_the_cuts_are_what_they_were_when_the_format_was_fixed() -> None:
    """Golden: another cut is another tree id for every large file that anyone has published."""
    weights = safetensors({"a": 10, "b": 5 * MIB, "c": 100, "d": MIB, "e": 300_000})
    found = {
        "text": sizes(TEXT, "a.rs"),
        "tensors": sizes(weights, "a.safetensors")[1:],
        "fixed": sizes(bytes(9 * MIB), "a.bin"),
    }
    assert found["tensors"] == [10, 4 * MIB, MIB, 100, MIB, 300_000]
    assert found["fixed"] == [4 * MIB, 4 * MIB, MIB]
    assert hashlib.sha256(json.dumps(found["text"]).encode()).hexdigest()[:16] == "561a7cf81d4f5b16"


def test_the_vectorised_hash_is_the_polynomial_it_says() -> None:
    data = np.frombuffer(random.Random(3).randbytes(100), np.uint8)
    plain = [
        sum(int(data[end - back]) * pow(chunking._FACTOR, back, 1 << 32) for back in range(32)) % (1 << 32)
        for end in range(31, 100)
    ]
    assert chunking._rolling(data).tolist() == plain


def test_an_insertion_in_text_moves_only_the_cuts_beside_it() -> None:
    middle = len(TEXT) // 2
    before, after = cut(TEXT, "a.rs"), cut(TEXT[:middle] + b"a new line\n" + TEXT[middle:], "a.rs")
    assert len(set(after) - set(before)) <= 2
    assert len(before) >= 6
    assert all(len(piece) >= TEXT_MIN for piece in before[:-1])


def test_a_changed_tensor_and_a_longer_header_change_only_their_own_pieces() -> None:
    shapes = {"embed": 3 * MIB, "norm": 4096, "q": 5 * MIB, "head": 3 * MIB}
    before = cut(safetensors(shapes), "m.safetensors")
    after = cut(safetensors({**shapes, "q": 5 * MIB - 64}, note="x" * 37), "m.safetensors")
    new = set(after) - set(before)
    assert {len(piece) for piece in new} <= {len(after[0]), MIB - 64}


def test_small_tensors_are_grouped_until_they_hold_a_mebibyte() -> None:
    found = sizes(safetensors({f"t{n:04d}": 100_000 for n in range(100)}), "m.safetensors")[1:]
    assert all(GROUP_MIN <= size < GROUP_MIN + 100_000 for size in found[:-1])


def _header(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff" * 16, struct.pack("<Q", 1 << 60) + b"{}", _header("[]"), _header("[" * 99_999),
        _header('{"a":1}'),
        _header('{"a":{"data_offsets":[0,true]}}'), _header('{"a":{"data_offsets":[0,90000000]}}'),
        _header('{"a":{"data_offsets":[-1,1]}}'), _header('{"a":{"data_offsets":[0,2]},"b":{"data_offsets":[1,3]}}'),
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0), b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 50),
    ],
    ids=lambda data: f"{len(data)}-{data[8:20].hex()}",
)  # fmt: skip
@pytest.mark.parametrize("name", ["m.safetensors", "m.gguf"])
def test_a_hostile_header_is_cut_as_any_other_file(data: bytes, name: str) -> None:
    data = data.ljust(9 * MIB, b"\0")
    assert sizes(data, name) == [4 * MIB, 4 * MIB, MIB]
    assert b"".join(cut(data, name)) == data


def test_names_of_chunks_are_in_file_order_and_end_somewhere() -> None:
    names = [chunk_name(index) for index in (0, 1, 9, 10, 999, 1000, 99_999)]
    assert names == ["00/000", "00/001", "00/009", "00/010", "00/999", "01/000", "99/999"]
    assert names == sorted(names)
    with pytest.raises(Refused, match="chunks"):
        chunk_name(100_000)


def test_memory_stays_at_a_few_chunks(tmp_path: Any) -> None:
    import tracemalloc

    (tmp_path / "a.txt").write_bytes(TEXT * 4)
    stream: BinaryIO
    with open(tmp_path / "a.txt", "rb") as stream:
        tracemalloc.start()
        total = sum(len(piece) for piece in chunks(stream, "a.txt", len(TEXT) * 4))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert total == len(TEXT) * 4
    assert peak < 6 * CHUNK_MAX
