"""A compressed stream as bytes, a bounded piece at a time; it stops as soon as a bomb shows.

gzip, bzip2, xz and (where the standard library has it) zstd are told by their first bytes; anything else is read as it
stands. Memory: one input block, one output block, and the decoder's own window (xz at most 128 MiB).
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import zlib
from typing import BinaryIO, Protocol

from workbench.fetch.limits import MIB, Limits

BLOCK = 64 * 1024
XZ_MEMORY = 128 * MIB
STREAMS = 64  # concatenated streams in one file


class Stop(Exception):
    """The whole archive is refused; nothing of it is kept."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule
        self.detail = detail


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """zlib's object with the interface that bz2 and lzma have."""

    def __init__(self) -> None:
        self._object = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._object.eof

    @property
    def needs_input(self) -> bool:
        return not self._object.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._object.decompress(self._object.unconsumed_tail + data, max_length)


class Unpacked:
    """``read`` gives the decompressed bytes; Stop for a bomb, a broken stream or a compression we do not read."""

    def __init__(self, source: BinaryIO, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._magic = source.read(6)
        self._pending = self._magic
        self._streams = 0
        self._decoder = self._start(self._magic)
        self._taken = len(self._magic)
        self._given = 0
        self._buffer = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        """``size`` bytes, fewer only at the end."""
        pieces: list[bytes] = []
        while size > 0:
            if self._at == len(self._buffer):
                self._buffer, self._at = self._next(), 0
                if not self._buffer:
                    break
            piece = self._buffer[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def skip(self, size: int) -> int:
        """Pass over ``size`` bytes; how many there were."""
        skipped = 0
        while skipped < size:
            if self._at == len(self._buffer):
                self._buffer, self._at = self._next(), 0
                if not self._buffer:
                    break
            step = min(size - skipped, len(self._buffer) - self._at)
            self._at += step
            skipped += step
        return skipped

    def _start(self, magic: bytes) -> _Decoder | None:
        self._streams += 1
        if self._streams > STREAMS:
            raise Stop("bomb", f"more than {STREAMS} concatenated streams")
        if magic.startswith(b"\x1f\x8b"):
            return _Gzip()
        if magic.startswith(b"BZh"):
            return bz2.BZ2Decompressor()
        if magic.startswith(b"\xfd7zXZ\x00"):
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
        if magic.startswith(b"\x28\xb5\x2f\xfd"):
            return _zstd()
        return None

    def _next(self) -> bytes:
        """The next block; empty at the end."""
        while True:
            block = self._decode()
            if block is None:
                return b""
            if block:
                self._given += len(block)
                self._check()
                return block

    def _decode(self) -> bytes | None:
        """One block, perhaps empty; None at the end."""
        if self._decoder is None:
            data, self._pending = self._pending or self._source.read(BLOCK), b""
            self._taken += len(data)
            return data or None
        if self._decoder.eof:
            rest = self._decoder.unused_data
            rest += self._source.read(6 - len(rest)) if len(rest) < 6 else b""
            if rest[:2] != self._magic[:2]:
                return None  # padding or rubbish after the end is nobody's data
            self._decoder, self._pending = self._start(rest), rest
            return b""
        data, ended = b"", False
        if self._decoder.needs_input:
            data, self._pending = self._pending or self._source.read(BLOCK), b""
            self._taken += len(data)
            ended = not data
        try:
            block = self._decoder.decompress(data, BLOCK)
        except (OSError, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
            if "Memory usage" in str(error):
                raise Stop("bomb", "the decoder asks for more memory than it may have") from None
            raise Stop("corrupt", f"the compressed stream is broken: {error}") from None
        except MemoryError:
            raise Stop("bomb", "the decoder asks for more memory than it may have") from None
        if ended and not block and not self._decoder.eof:
            raise Stop("truncated", "the compressed stream ends early")
        return block

    def _check(self) -> None:
        limits = self._limits
        if self._given > limits.total_bytes:
            raise Stop("bomb", f"unpacks to more than {limits.total_bytes} bytes")
        if self._given > self._taken * limits.ratio + limits.ratio_slack_bytes:
            raise Stop("bomb", f"unpacks to more than {limits.ratio} times its size")


def _zstd() -> _Decoder:
    try:
        decoder: _Decoder = importlib.import_module("compression.zstd").ZstdDecompressor()
        return decoder
    except ImportError:
        raise Stop("compression", "zstd needs Python 3.14 or newer") from None
