"""The bounded header reader: true to gguf's own reader, and unmoved by thousands of hostile files."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.domain.errors import Corrupt, NotFound
from workbench.domain.gguf import TENSOR_TYPES, Header, HostileHeader, Length, parse_header
from workbench.inference import llama
from workbench.inference.gguf_header import read_header
from workbench.inference.quantise import quantise


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def key(name: str, kind: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def tensor(name: str = "t", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + dims + struct.pack("<IQ", kind, offset)


def file(
    keys: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    data: int = 4096,
) -> bytes:
    keys, tensors = keys or [], [tensor()] if tensors is None else tensors
    num_tensors, num_keys = counts or (len(tensors), len(keys))
    head = b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


def parse(data: bytes) -> Header:
    return parse_header(io.BytesIO(data), len(data))


def test_it_reads_what_gguf_s_own_reader_reads(tiny: Any) -> None:
    for path in (tiny.f32, tiny.f16, tiny.q8):
        header, other = read_header(path), gguf.GGUFReader(path)
        assert header.data_offset == other.data_offset
        assert [(t.name, t.type, list(t.shape), t.offset + header.data_offset, t.size) for t in header.tensors] == [
            (t.name, t.tensor_type.name, t.shape.tolist(), t.data_offset, t.n_bytes) for t in other.tensors
        ]
        for name, field in other.fields.items():
            if name.startswith("GGUF."):
                continue
            value, found = field.contents(), header.metadata[name]
            assert found == (Length(len(value)) if isinstance(value, list) else value)


def test_of_a_long_string_the_length_is_kept() -> None:
    keys = [key("a", 8, string("é" * (1 << 15))), key("b", 8, string(b"x" * ((1 << 16) + 1))), key("c", 4, bytes(4))]
    assert parse(file(keys)).metadata == {"a": "é" * (1 << 15), "b": Length((1 << 16) + 1), "c": 0}


def test_the_block_sizes_are_gguf_s() -> None:
    for number, (name, block, size) in TENSOR_TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, *gguf.GGML_QUANT_SIZES[kind]) == (name, block, size)


HUGE = 1 << 63
HOSTILE = {
    "empty": b"",
    "short": b"GGU",
    "another format": b"PK\x03\x04" + bytes(100),
    "ends after the version": b"GGUF\x03\0\0\0",
    "version 1": file(version=1),
    "version 4": file(version=4),
    "big-endian version": file(version=0x03000000),
    "2^64-1 tensors": file(counts=(2**64 - 1, 0)),
    "2^64-1 keys": file(counts=(0, 2**64 - 1)),
    "65,537 tensors": file(counts=((1 << 16) + 1, 0)),
    "a key of 2^63 bytes": file([struct.pack("<Q", HUGE)]),
    "a key longer than the file": file([struct.pack("<Q", 60_000)]),
    "an empty key": file([key("", 4, bytes(4))]),
    "a key twice": file([key("a", 4, bytes(4))] * 2),
    "a key that is no UTF-8": file([string(b"\xff\xfe") + struct.pack("<I", 4) + bytes(4)]),
    "a key with a zero byte": file([key("a\0b", 4, bytes(4))]),
    "an unknown value type": file([key("a", 13, bytes(8))]),
    "a string of 2^63 bytes": file([key("a", 8, struct.pack("<Q", HUGE))]),
    "a string of 17 MiB": file([key("a", 8, struct.pack("<Q", 17 << 20))]),
    "5 MiB in short strings": file([key(f"{number}", 8, string(b"x" * (1 << 16))) for number in range(80)]),
    "an array of 2^61 numbers": file([key("a", 9, struct.pack("<IQ", 12, 1 << 61))]),
    "an array longer than the file": file([key("a", 9, struct.pack("<IQ", 12, 1 << 20))]),
    "an array of arrays": file([key("a", 9, struct.pack("<IQ", 9, 1))]),
    "an array of unknown things": file([key("a", 9, struct.pack("<IQ", 99, 1))]),
    "more strings than all arrays may have": file(
        [key("a", 9, struct.pack("<IQ", 8, 1) + bytes(8)), key("b", 9, struct.pack("<IQ", 8, 4 << 20))]
    ),
    "strings in an array that never end": file([key("a", 9, struct.pack("<IQ", 8, 1 << 24) + bytes(8))]),
    "alignment 0": file([key("general.alignment", 4, struct.pack("<I", 0))]),
    "alignment 33": file([key("general.alignment", 4, struct.pack("<I", 33))]),
    "alignment 2^31": file([key("general.alignment", 4, struct.pack("<I", 1 << 31))]),
    "alignment as text": file([key("general.alignment", 8, string("32"))]),
    "no dimensions": file(tensors=[tensor(shape=())]),
    "five dimensions": file(tensors=[tensor(shape=(1, 1, 1, 1, 1))]),
    "a million dimensions": file(tensors=[string("t") + struct.pack("<I", 1_000_000)]),
    "a dimension of zero": file(tensors=[tensor(shape=(32, 0))]),
    "a product that overflows 64 bits": file(tensors=[tensor(shape=(1 << 32, 1 << 32))]),
    "a product that wraps to something small": file(tensors=[tensor(shape=((1 << 63) + 16, 2))]),
    "bytes that overflow 64 bits": file(tensors=[tensor(shape=(1 << 61, 2), kind=28)]),
    "an unknown tensor type": file(tensors=[tensor(kind=4)]),
    "a type far out": file(tensors=[tensor(kind=0xFFFFFFFF)]),
    "a row that is no whole block": file(tensors=[tensor(shape=(33,), kind=8)]),
    "an offset off the alignment": file(tensors=[tensor(offset=4)]),
    "an offset after the end": file(tensors=[tensor(offset=1 << 40)]),
    "an offset of 2^64-32": file(tensors=[tensor(offset=2**64 - 32)]),
    "data that runs over the end": file(tensors=[tensor(shape=(4096,))]),
    "two tensors of one name": file(tensors=[tensor(), tensor(offset=128)]),
    "tensors that overlap": file(tensors=[tensor("a", (64,)), tensor("b", (64,), offset=32)]),
    "a tensor name of 64 bytes": file(tensors=[tensor("n" * 64)]),
    "a tensor name of 2^63 bytes": file(tensors=[struct.pack("<Q", HUGE)]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_each_hostile_header_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(HostileHeader, match=r".+ \(near byte \d+\)$"):
        parse(HOSTILE[name])


def test_the_plain_file_that_the_hostile_ones_are_made_of_is_read() -> None:
    header = parse(file([key("general.alignment", 4, struct.pack("<I", 64)), key("a", 8, string("b"))]))
    assert header.metadata == {"general.alignment": 64, "a": "b"}
    assert header.tensors[0].size == 128


def test_llama_cpp_never_sees_a_hostile_file(tmp_path: Path) -> None:
    for number, data in enumerate(HOSTILE.values()):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(data)
        with pytest.raises(Corrupt, match=r"\.gguf is not a model that can be loaded: .*near byte") as caught:
            llama.load(path)
        assert caught.value.hint
        with pytest.raises(Corrupt, match="not a model that can be loaded"):
            quantise(path, tmp_path / "out.gguf", "Q8_0")
    assert not (tmp_path / "out.gguf").exists()


def test_a_header_within_bounds_that_is_no_llama_is_refused_by_the_loader(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(file([key("general.architecture", 8, string("nonsense"))]))
    with pytest.raises(Corrupt, match=r"llama\.cpp cannot load other\.gguf: .*nonsense"):
        llama.load(path)


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such model file"):
        llama.load(tmp_path / "none.gguf")


@pytest.fixture(scope="module")
def head(tiny: Any) -> tuple[bytes, int]:
    """A real file's header, and the size of the whole file."""
    with tiny.q8.open("rb") as opened:
        return opened.read(read_header(tiny.q8).data_offset), tiny.q8.stat().st_size


def mutate(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 8))):
        at = generator.randrange(len(changed))
        match generator.randrange(5):
            case 0:
                changed[at] ^= 1 << generator.randrange(8)
            case 1:
                value = generator.choice((0, 1, 0xFF, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1, 2**64 - 1))
                changed[at : at + 8] = struct.pack("<Q", value)
            case 2:
                del changed[at : at + generator.randrange(1, 64)]
            case 3:
                changed[at:at] = generator.randbytes(generator.randrange(1, 64))
            case _:
                del changed[max(16, at) :]
    return bytes(changed)


def refusals(head: tuple[bytes, int], seed: int, count: int) -> int:
    data, size = head
    generator = random.Random(seed)
    refused = 0
    for _ in range(count):
        try:
            parse_header(io.BytesIO(mutate(data, generator)), size)
        except HostileHeader:
            refused += 1
    return refused


def test_five_thousand_mutations_are_read_or_refused(head: tuple[bytes, int]) -> None:
    assert refusals(head, seed=11, count=5000) > 1000


def test_short_reads_of_a_stream_change_nothing(tiny: Any) -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(max(1, (size or 0) // 3))

    data = tiny.q8.read_bytes()
    assert parse_header(Trickle(data), len(data)) == parse(data) == read_header(tiny.q8)


def test_what_a_header_says_of_its_tensors(tiny: Any) -> None:
    header = read_header(tiny.q8)
    assert sum(header.types.values()) == len(header.tensors)
    assert header.types["F32"] == sum(len(tensor.shape) == 1 for tensor in header.tensors)
    assert header.starts[0] == header.data_offset
    assert list(header.starts) == sorted(tensor.offset + header.data_offset for tensor in header.tensors)
    assert header.architecture == "llama"


def test_mutations_and_hostile_files_never_set_much_memory_aside(head: tuple[bytes, int]) -> None:
    tracemalloc.start()
    try:
        refusals(head, seed=12, count=300)
        for data in HOSTILE.values():
            with contextlib.suppress(HostileHeader):
                parse(data)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=500)
@given(st.binary(max_size=400), st.integers(0, 1 << 50))
def test_any_bytes_are_read_or_refused(data: bytes, size: int) -> None:
    for start in (b"", b"GGUF\x03\0\0\0", b"GGUF\x03\0\0\0" + struct.pack("<QQ", 1, 1)):
        with contextlib.suppress(HostileHeader):
            parse_header(io.BytesIO(start + data), size)
