"""Where the tensors lie in a safetensors or GGUF file, read within hard bounds. Not here: the tensors' values.

A header comes from strangers, so nothing in it is believed before it is checked: every number is bounded, every
offset lies inside the file, and the header is never held in memory as a whole when it is larger than needed.
Sources: the safetensors format description and the GGUF specification in the ggml repository.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MAX_TENSORS = 100_000
MAX_GGUF_ENTRIES = 65_536  # keys, and tensors
MAX_STRING = 16 << 20
MAX_HEADER = 256 << 20
MAX_ARRAY = 16 << 20  # elements
MAX_DIMS = 4
GGUF_VERSIONS = (2, 3)

# ggml type -> (weights per block, bytes per block)
GGML_TYPES: Mapping[int, tuple[int, int]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17),
}  # fmt: skip

GGML_NAMES: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class HostileHeader(ValueError):
    """The header breaks a bound or contradicts the file; the text says which."""


@dataclass(frozen=True)
class Header:
    """``data_start`` is where tensor data begins; ``starts`` are the tensors' first bytes, rising."""

    data_start: int
    starts: tuple[int, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)  # scalars and short strings; arrays by their length
    types: Mapping[int, int] = field(default_factory=dict)  # ggml type -> number of tensors


def read_safetensors(stream: BinaryIO, size: int) -> Header:
    """Parse the header of a safetensors file of ``size`` bytes."""
    stream.seek(0)
    prefix = stream.read(8)
    if len(prefix) < 8:
        raise HostileHeader("shorter than a safetensors prefix")
    (length,) = struct.unpack("<Q", prefix)
    if length > MAX_STRING or 8 + length > size:
        raise HostileHeader(f"header of {length} bytes (at most {MAX_STRING}, and inside the file)")
    try:
        raw = json.loads(stream.read(length))
    except (ValueError, RecursionError) as error:
        raise HostileHeader(f"header is no JSON: {error}") from error
    if not isinstance(raw, dict) or len(raw) > MAX_TENSORS:
        raise HostileHeader("header is no object, or names too many tensors")
    data_start = 8 + length
    spans = sorted(_span(name, value, size - data_start) for name, value in raw.items() if name != "__metadata__")
    if any(a_end > b_start for (_, a_end), (b_start, _) in itertools.pairwise(spans)):
        raise HostileHeader("tensors overlap")
    metadata = raw.get("__metadata__")
    return Header(
        data_start,
        tuple(data_start + start for start, end in spans if end > start),
        metadata if isinstance(metadata, dict) else {},
    )


def _span(name: str, value: Any, limit: int) -> tuple[int, int]:
    offsets = value.get("data_offsets") if isinstance(value, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int for n in offsets):
        raise HostileHeader(f"tensor {name[:80]!r} has no data_offsets")
    start, end = offsets
    if not 0 <= start <= end <= limit:
        raise HostileHeader(f"tensor {name[:80]!r} lies outside the file")
    return start, end


class _Reader:
    """Little-endian numbers and strings from a stream, never past ``limit``."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._window = b""
        self._at = 0  # position in the window
        self._base = 0  # file offset of the window

    @property
    def position(self) -> int:
        return self._base + self._at

    def take(self, count: int) -> bytes:
        if self.position + count > self._limit:
            raise HostileHeader(f"header reaches beyond {self._limit} bytes")
        if self._at + count > len(self._window):
            self._base += self._at
            self._stream.seek(self._base)
            self._window = self._stream.read(max(count, 1 << 20))
            self._at = 0
            if len(self._window) < count:
                raise HostileHeader("file ends inside its header")
        piece = self._window[self._at : self._at + count]
        self._at += count
        return piece

    def skip(self, count: int) -> None:
        if self.position + count > self._limit:
            raise HostileHeader(f"header reaches beyond {self._limit} bytes")
        if self._at + count <= len(self._window):
            self._at += count
            return
        self._base, self._at, self._window = self.position + count, 0, b""

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def length(self, limit: int, what: str) -> int:
        value = int(self.number("Q"))
        if value > limit:
            raise HostileHeader(f"{what} is {value} (at most {limit})")
        return value

    def text(self) -> str:
        try:
            return self.take(self.length(MAX_STRING, "a string's length")).decode()
        except UnicodeDecodeError as error:
            raise HostileHeader("a name is not UTF-8") from error

    def skip_text(self) -> None:
        self.skip(self.length(MAX_STRING, "a string's length"))


def read_gguf(stream: BinaryIO, size: int) -> Header:
    """Parse the header of a GGUF file of ``size`` bytes: keys, and every tensor's type, shape and place."""
    reader = _Reader(stream, min(size, MAX_HEADER))
    if reader.take(4) != b"GGUF":
        raise HostileHeader("does not begin with GGUF")
    version = reader.number("I")
    if version not in GGUF_VERSIONS:
        raise HostileHeader(f"GGUF version {version} (known: {', '.join(map(str, GGUF_VERSIONS))})")
    num_tensors = reader.length(MAX_GGUF_ENTRIES, "the number of tensors")
    num_keys = reader.length(MAX_GGUF_ENTRIES, "the number of keys")
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = reader.text()
        if key in metadata:
            raise HostileHeader(f"key {key[:80]!r} appears twice")
        metadata[key] = _value(reader, reader.number("I"))
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise HostileHeader(f"alignment {alignment!r} is no power of two from 8 to 1 Mi")
    tensors = [_tensor(reader, alignment) for _ in range(num_tensors)]
    if len({name for name, *_ in tensors}) != num_tensors:
        raise HostileHeader("a tensor appears twice")
    data_start = -(-reader.position // alignment) * alignment
    spans = sorted((data_start + offset, data_start + offset + length) for _, _, offset, length in tensors)
    if spans and spans[-1][1] > size:
        raise HostileHeader("a tensor lies outside the file")
    if any(a_end > b_start for (_, a_end), (b_start, _) in itertools.pairwise(spans)):
        raise HostileHeader("tensors overlap")
    types: dict[int, int] = {}
    for _, kind, _, _ in tensors:
        types[kind] = types.get(kind, 0) + 1
    return Header(min(data_start, size), tuple(start for start, end in spans if end > start), metadata, types)


def _value(reader: _Reader, kind: int) -> Any:
    """A scalar or string as it is; of an array only its length."""
    if kind in _SCALARS:
        return reader.number(_SCALARS[kind])
    if kind == _STRING:
        return reader.take(reader.length(MAX_STRING, "a string's length")).decode("utf-8", "replace")
    if kind != _ARRAY:
        raise HostileHeader(f"unknown value type {kind}")
    inner = reader.number("I")
    count = reader.length(MAX_ARRAY, "an array's length")
    if inner in _SCALARS:
        reader.skip(count * struct.calcsize("<" + _SCALARS[inner]))
    elif inner == _STRING:
        for _ in range(count):
            reader.skip_text()
    else:
        raise HostileHeader(f"array of unknown type {inner}")
    return [count]


def _tensor(reader: _Reader, alignment: int) -> tuple[str, int, int, int]:
    """Name, ggml type, offset from the start of the data, size in bytes."""
    name = reader.text()
    num_dims = reader.number("I")
    if not 1 <= num_dims <= MAX_DIMS:
        raise HostileHeader(f"tensor {name[:80]!r} has {num_dims} dimensions (1 to {MAX_DIMS})")
    elements = 1
    dims = [reader.number("Q") for _ in range(num_dims)]
    for dim in dims:
        elements *= dim
        if dim < 1 or elements >= 1 << 48:
            raise HostileHeader(f"tensor {name[:80]!r} has an impossible shape {dims}")
    kind = reader.number("I")
    if kind not in GGML_TYPES:
        raise HostileHeader(f"tensor {name[:80]!r} has unknown type {kind}")
    block, block_bytes = GGML_TYPES[kind]
    if dims[0] % block:
        raise HostileHeader(f"tensor {name[:80]!r}: rows of {dims[0]} are no multiple of {block}")
    offset = reader.number("Q")
    if offset % alignment:
        raise HostileHeader(f"tensor {name[:80]!r} is not aligned to {alignment}")
    return name, kind, offset, elements // block * block_bytes
