"""What a GGUF file says of itself: its header, read within hard bounds. Not here: tensor data, which is never read.

A header comes from strangers, so every count, length, type, shape and offset is checked before memory is set aside for
it; of arrays and long strings only the length is kept. A hostile file costs little time and memory, and llama.cpp never
sees a header that is out of bounds. Source: the GGUF specification in the ggml repository, versions 2 and 3, little
endian.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import BinaryIO, TypeAlias

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_STRING_BYTES = 16 << 20
MAX_KEPT_BYTES = 1 << 16  # of a longer string only the length is kept, as of an array
MAX_TEXT_BYTES = 4 << 20  # all keys and kept strings together: Python may take four times as much
MAX_KEY_BYTES = 1 << 16
MAX_TENSOR_NAME_BYTES = 63  # ggml keeps 64 bytes with the final zero
MAX_DIMS = 4
MAX_ARRAY = 16 << 20  # elements
MAX_STRINGS = 4 << 20  # elements of all arrays of strings together: the largest vocabularies have a tenth of it
MAX_HEADER_BYTES = 512 << 20
MAX_ALIGNMENT = 1 << 16
_WINDOW_BYTES = 1 << 18

# type id -> (name, elements in a block, bytes of a block); what ggml removed, never had or keeps to itself is refused
TENSOR_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}

_SCALARS: Mapping[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


class HostileHeader(ValueError):
    """The header breaks a bound or contradicts the file; the text says which, and near which byte."""


@dataclass(frozen=True)
class TensorInfo:
    name: str
    type: str
    shape: tuple[int, ...]  # as stored: the row length first
    offset: int  # from the start of the data
    size: int  # bytes


@dataclass(frozen=True)
class Length:
    """An array or a long string in the metadata, of which only the length is kept."""

    length: int


Value: TypeAlias = "int | float | str | bool | Length"


@dataclass(frozen=True)
class Header:
    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    data_offset: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @cached_property
    def types(self) -> Mapping[str, int]:
        """Type -> number of tensors, in the order of the types' names."""
        return dict(sorted(Counter(tensor.type for tensor in self.tensors).items()))

    @property
    def starts(self) -> tuple[int, ...]:
        """The tensors' first bytes in the file, rising."""
        return tuple(sorted(self.data_offset + tensor.offset for tensor in self.tensors))


def parse_header(file: BinaryIO, size: int) -> Header:
    """Read and check the header of an open file of ``size`` bytes. HostileHeader, with the reason."""
    reader = _Reader(file, size)
    if reader.take(4) != MAGIC:
        raise reader.hostile("it does not start with the letters GGUF")
    version = reader.u32()
    if version not in VERSIONS:
        raise reader.hostile(f"version {version} is not known (2 and 3 are; a big-endian file is not read)")
    num_tensors, num_keys = reader.u64(), reader.u64()
    reader.bound("number of tensors", num_tensors, MAX_TENSORS)
    reader.bound("number of keys", num_keys, MAX_KEYS)
    metadata = _metadata(reader, num_keys)
    alignment = _alignment(reader, metadata)
    described = [_tensor(reader) for _ in range(num_tensors)]
    data_offset = -(-reader.position // alignment) * alignment
    _check_layout(reader, described, alignment, size - data_offset)
    return Header(version, metadata, tuple(described), data_offset)


@dataclass
class _Reader:
    """Takes little-endian values from a file and never beyond its end. Holds one window of it, however short the
    stream's reads are."""

    file: BinaryIO
    size: int
    strings: int = 0  # elements of string arrays so far
    text_bytes: int = 0  # of keys and strings so far
    _window: bytes = field(default=b"", init=False)
    _at: int = field(default=0, init=False)  # in the window
    _base: int = field(default=0, init=False)  # of the window, in the file

    @property
    def position(self) -> int:
        return self._base + self._at

    def hostile(self, why: str) -> HostileHeader:
        return HostileHeader(f"{why} (near byte {self.position})")

    def bound(self, what: str, value: int, limit: int) -> None:
        if value > limit:
            raise self.hostile(f"{what} is {value}, the limit is {limit}")

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._window):
            self._fill(count)
            end = count
        piece = self._window[self._at : end]
        self._at = end
        return piece

    def skip(self, count: int) -> None:
        self._fits(count)
        if self._at + count <= len(self._window):
            self._at += count
        else:
            self._base, self._at, self._window = self.position + count, 0, b""

    def _fill(self, count: int) -> None:
        """A new window that begins here and holds at least ``count`` bytes."""
        self._fits(count)
        self._base, self._at = self.position, 0
        self.file.seek(self._base)
        wanted = max(count, min(_WINDOW_BYTES, self.size - self._base))
        parts: list[bytes] = []
        while wanted and (data := self.file.read(wanted)):
            parts.append(data)
            wanted -= len(data)
        self._window = b"".join(parts)
        if len(self._window) < count:
            raise self.hostile("it ends inside its header")

    def _fits(self, count: int) -> None:
        if count > min(self.size, MAX_HEADER_BYTES) - self.position:
            raise self.hostile("it ends inside its header")

    def u32(self) -> int:
        return int(_U32.unpack(self.take(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack(self.take(8))[0])

    def string(self, what: str, limit: int) -> str:
        length = self.u64()
        self.bound(f"length of a {what}", length, limit)
        return self._text(what, length)

    def _text(self, what: str, length: int) -> str:
        self.text_bytes += length
        self.bound("length of all keys and strings together", self.text_bytes, MAX_TEXT_BYTES)
        try:
            text = self.take(length).decode()
        except UnicodeDecodeError as error:
            raise self.hostile(f"a {what} is not UTF-8") from error
        if "\0" in text:
            raise self.hostile(f"a {what} holds a zero byte")
        return text

    def string_or_length(self) -> str | Length:
        length = self.u64()
        if length <= MAX_KEPT_BYTES:
            return self._text("string", length)
        self._skip_string(length)
        return Length(length)

    def skip_string(self) -> None:
        self._skip_string(self.u64())

    def _skip_string(self, length: int) -> None:
        self.bound("length of a string", length, MAX_STRING_BYTES)
        self.skip(length)


def _metadata(reader: _Reader, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(count):
        key = reader.string("key", MAX_KEY_BYTES)
        if not key or key in metadata:
            raise reader.hostile(f"the key {key[:80]!r} is empty or stands there twice")
        metadata[key] = _value(reader, reader.u32())
    return metadata


def _value(reader: _Reader, kind: int) -> Value:
    if kind in _SCALARS:
        scalar = _SCALARS[kind]
        value: int | float | bool = scalar.unpack(reader.take(scalar.size))[0]
        return value
    if kind == _STRING:
        return reader.string_or_length()
    if kind == _ARRAY:
        return _array(reader)
    raise reader.hostile(f"value type {kind} is not known")


def _array(reader: _Reader) -> Length:
    kind, length = reader.u32(), reader.u64()
    reader.bound("length of an array", length, MAX_ARRAY)
    if kind in _SCALARS:
        reader.skip(length * _SCALARS[kind].size)
    elif kind == _STRING:
        reader.strings += length
        reader.bound("number of strings in arrays", reader.strings, MAX_STRINGS)
        for _ in range(length):
            reader.skip_string()
    else:  # arrays of arrays too: llama.cpp refuses them
        raise reader.hostile(f"an array of value type {kind} is not known")
    return Length(length)


def _alignment(reader: _Reader, metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or isinstance(alignment, bool) or not 8 <= alignment <= MAX_ALIGNMENT:
        raise reader.hostile(f"general.alignment is {alignment!r}")
    if alignment & (alignment - 1):
        raise reader.hostile(f"general.alignment is {alignment}, not a power of two")
    return alignment


def _tensor(reader: _Reader) -> TensorInfo:
    name = reader.string("tensor name", MAX_TENSOR_NAME_BYTES)
    num_dims = reader.u32()
    if not 1 <= num_dims <= MAX_DIMS:
        raise reader.hostile(f"tensor {name!r} has {num_dims} dimensions")
    shape = tuple(reader.u64() for _ in range(num_dims))
    kind = reader.u32()
    if kind not in TENSOR_TYPES:
        raise reader.hostile(f"tensor {name!r} has the unknown type {kind}")
    type_name, block, block_bytes = TENSOR_TYPES[kind]
    elements = 1
    for length in shape:  # Python's integers do not overflow; the bound keeps ggml's from doing so
        elements *= length
    if not 0 < elements < 1 << 62 or any(length == 0 for length in shape):
        raise reader.hostile(f"tensor {name!r} has the shape {shape}")
    if shape[0] % block:
        raise reader.hostile(f"a row of tensor {name!r} holds {shape[0]} values, not whole blocks of {block}")
    return TensorInfo(name, type_name, shape, reader.u64(), elements // block * block_bytes)


def _check_layout(reader: _Reader, tensors: list[TensorInfo], alignment: int, available: int) -> None:
    """Names are unique, offsets aligned, and the data lies inside the file without overlap."""
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise reader.hostile("two tensors have the same name")
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset % alignment:
            raise reader.hostile(f"tensor {tensor.name!r} starts at {tensor.offset}, not a multiple of {alignment}")
        if tensor.offset < end:
            raise reader.hostile(f"tensor {tensor.name!r} overlaps the one before it")
        end = tensor.offset + tensor.size
        if end > available:
            raise reader.hostile(f"tensor {tensor.name!r} ends {end - available} bytes after the end of the file")
