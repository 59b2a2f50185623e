"""Where a large file is cut into blobs. The cut is a pure function of the file's bytes and name.

==================  ==========================================================================================
safetensors, GGUF   at tensor boundaries: the header is its own blob, tensors under 1 MiB are grouped, tensors
                    over 4 MiB are split at fixed offsets from the tensor's start
text                by content: a cut falls where the hash of the last 32 bytes is small, 256 KiB to 4 MiB apart,
                    about 1 MiB on average; an insertion moves only the cuts beside it
all else            every 4 MiB
==================  ==========================================================================================

A header that breaks a bound is cut as "all else". Files up to 8 MiB are plain blobs and never come here.
Changing any number here changes tree ids: the golden digests in the tests hold them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from workbench.domain import manifest
from workbench.domain.errors import Refused
from workbench.domain.gguf import HostileHeader
from workbench.store.payload.tensors import Layout, gguf_layout, safetensors_layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KIB, MIB = 1 << 10, 1 << 20
WHOLE_MAX = 8 * MIB  # a file up to this size is one blob
CHUNK_MAX = 4 * MIB
GROUP_MIN = 1 * MIB  # tensors are grouped until they hold this much
TEXT_MIN = 256 * KIB
TEXT_SPREAD = 768 * KIB  # expected bytes from the minimum to the next cut
WINDOW = 32  # bytes that decide a cut in text
MAX_CHUNKS = 100_000  # two levels: 100 trees of 1,000 blobs

_TEXT = (".jsonl", ".json", ".txt", ".rs", ".md", ".csv")
_FACTOR = 0x2C1B3C6D  # odd, so that every byte of the window reaches the top bits
_BLOCK = 32 * KIB  # what the vectorised hash takes at once: fits a core's cache


def is_text(name: str) -> bool:
    return name.endswith(_TEXT)


def chunk_name(index: int) -> str:
    """As the domain says, within bounds."""
    if index >= MAX_CHUNKS:
        raise Refused(f"a file has more than {MAX_CHUNKS} chunks", "split it into several files; 100 GB is a good size")
    return manifest.chunk_name(index)


def chunks(stream: BinaryIO, name: str, size: int) -> Iterator[bytes]:
    """The pieces of a file of ``size`` bytes that is at its start, in order. Holds a few chunks at most."""
    if is_text(name):
        yield from _by_content(stream)
        return
    for length in lengths(stream, name, size):
        yield read_exactly(stream, length)


def lengths(stream: BinaryIO, name: str, size: int) -> Iterator[int]:
    """The sizes of the pieces of a file that is not text; leaves the stream at its start."""
    parse = _PARSERS.get(name[name.rfind(".") :])
    if parse is not None:
        try:
            layout: Layout | None = parse(stream, size)
        except HostileHeader:
            layout = None
        stream.seek(0)
        if layout is not None:
            return _by_tensor(layout, size)
    return _fixed(size)


_PARSERS: dict[str, Callable[[BinaryIO, int], Layout]] = {".safetensors": safetensors_layout, ".gguf": gguf_layout}


def read_exactly(stream: BinaryIO, count: int) -> bytes:
    """``count`` bytes, however short the reads; fewer only at the end of the file."""
    data = stream.read(count)
    if len(data) == count or not data:
        return data
    parts = [data]
    missing = count - len(data)
    while missing and (data := stream.read(missing)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def _fixed(size: int) -> Iterator[int]:
    for start in range(0, size, CHUNK_MAX):
        yield min(CHUNK_MAX, size - start)


def _by_tensor(layout: Layout, size: int) -> Iterator[int]:
    """The header, then tensors with the padding that follows each; see the table above."""
    yield from _fixed(layout.data_start)
    bounds = [layout.data_start, *(start for start in layout.starts if start > layout.data_start), size]
    group = 0
    for start, end in itertools.pairwise(bounds):
        length = end - start
        if length >= GROUP_MIN:
            if group:
                yield group
            group = 0
            yield from _fixed(length)
            continue
        group += length
        if group >= GROUP_MIN:
            yield group
            group = 0
    if group:
        yield group


def _by_content(stream: BinaryIO) -> Iterator[bytes]:
    pending = bytearray()  # from the last cut on
    while True:
        missing = CHUNK_MAX - len(pending)
        pending += read_exactly(stream, missing)
        if not pending:
            return
        cut = _text_cut(pending)
        yield bytes(memoryview(pending)[:cut])
        del pending[:cut]


def _text_cut(data: bytearray) -> int:
    """The length of the piece that begins ``data``, which holds ``CHUNK_MAX`` bytes or all that is left."""
    import numpy as np

    limit = np.uint32((1 << 32) // TEXT_SPREAD)
    for start in range(TEXT_MIN, len(data), _BLOCK):
        window = np.frombuffer(data, np.uint8, min(_BLOCK, len(data) - start) + WINDOW - 1, start - WINDOW + 1)
        hits = np.flatnonzero(_rolling(window) < limit)
        if hits.size:
            return start + int(hits[0]) + 1
    return len(data)


def _rolling(data: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """For each position from the 32nd on, the polynomial hash (mod 2**32) of the 32 bytes that end there.

    Doubling: the hash of 2n bytes is the hash of the first n times factor**n, plus the hash of the last n. Five
    passes of multiply and add over the whole block instead of one step for each byte.
    """
    import numpy as np

    hashes = data.astype(np.uint32)
    factor, width = _FACTOR, 1
    while width < WINDOW:
        doubled = hashes[:-width] * np.uint32(factor)
        doubled += hashes[width:]
        hashes = doubled
        factor = factor * factor & 0xFFFFFFFF
        width *= 2
    return hashes
