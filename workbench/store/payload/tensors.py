"""Where the tensors lie in a safetensors or GGUF file, read within hard bounds. Not here: the tensors' values.

A header comes from strangers, so nothing in it is believed before it is checked: every offset lies inside the file, and
the header is never held in memory as a whole when it is larger than needed. Sources: the safetensors format
description; of GGUF, ``domain.gguf``.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from workbench.domain.gguf import HostileHeader, parse_header
from workbench.domain.reading import BadInput, Limits, parse_json

MAX_TENSORS = 100_000
MAX_JSON_BYTES = 16 << 20
_LIMITS = Limits(size_bytes=MAX_JSON_BYTES, values=20 * MAX_TENSORS)


@dataclass(frozen=True)
class Layout:
    """``data_start`` is where tensor data begins; ``starts`` are the tensors' first bytes, rising."""

    data_start: int
    starts: tuple[int, ...]


def gguf_layout(stream: BinaryIO, size: int) -> Layout:
    """Where the tensors of a GGUF file of ``size`` bytes lie; HostileHeader for one that is out of bounds."""
    header = parse_header(stream, size)
    return Layout(min(header.data_offset, size), header.starts)


def safetensors_layout(stream: BinaryIO, size: int) -> Layout:
    """Where the tensors of a safetensors file of ``size`` bytes lie; HostileHeader for one that is out of bounds."""
    stream.seek(0)
    prefix = stream.read(8)
    if len(prefix) < 8:
        raise HostileHeader("shorter than a safetensors prefix")
    (length,) = struct.unpack("<Q", prefix)
    if length > MAX_JSON_BYTES or 8 + length > size:
        raise HostileHeader(f"header of {length} bytes (at most {MAX_JSON_BYTES}, and inside the file)")
    try:
        raw = parse_json(stream.read(length), _LIMITS)
    except BadInput as bad:
        raise HostileHeader(f"header: {bad}") from None
    if not isinstance(raw, dict) or len(raw) > MAX_TENSORS:
        raise HostileHeader("header is no object, or names too many tensors")
    data_start = 8 + length
    spans = sorted(_span(name, value, size - data_start) for name, value in raw.items() if name != "__metadata__")
    if any(a_end > b_start for (_, a_end), (b_start, _) in itertools.pairwise(spans)):
        raise HostileHeader("tensors overlap")
    return Layout(data_start, tuple(data_start + start for start, end in spans if end > start))


def _span(name: str, value: Any, limit: int) -> tuple[int, int]:
    offsets = value.get("data_offsets") if isinstance(value, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int for n in offsets):
        raise HostileHeader(f"tensor {name[:80]!r} has no data_offsets")
    start, end = offsets
    if not 0 <= start <= end <= limit:
        raise HostileHeader(f"tensor {name[:80]!r} lies outside the file")
    return start, end
