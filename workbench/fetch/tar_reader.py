"""The members of a tar (ustar, GNU, pax), read forward in bounded memory. Not here: deciding what is kept.

The standard library's reader is not used: in the Python we run on it can be made to loop, to match a header in
quadratic time and to take a header of any size into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workbench.fetch.decompress import BLOCK, Stop, Unpacked
from workbench.fetch.limits import Limits

BLOCK_SIZE = 512
KINDS = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "link",
    b"2": "link",
    b"3": "device",
    b"4": "device",
    b"5": "folder",
    b"6": "fifo",
    b"S": "sparse",
}
EXTENSIONS = 8  # extended headers before one member


@dataclass(frozen=True)
class Member:
    path: str  # bytes that are not UTF-8 as surrogates
    kind: str  # file, folder, link, device, fifo, sparse, unknown
    size: int
    target: str = ""  # of a link


def members(stream: Unpacked, limits: Limits) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Each member with its content, which may be left unread."""
    extended: dict[str, str] = {}
    extensions = 0
    while header := _header(stream):
        kind = header[156:157]
        size = _number(header[124:136])
        if kind in (b"L", b"K", b"x", b"X", b"g"):
            extensions += 1
            if size > limits.header_bytes or extensions > EXTENSIONS:
                raise Stop("header", f"an extended header of {size} bytes, number {extensions} before one member")
            data = stream.read(size)
            if len(data) < size:
                raise Stop("truncated", "inside an extended header")
            _skip(stream, -size % BLOCK_SIZE)
            _extend(extended, kind, data)
            continue
        member = _member(header, kind, size, extended)
        extended, extensions = {}, 0
        content = _Content(stream, member.size if member.kind != "folder" else 0)
        yield member, content.read()
        content.finish()


class _Content:
    def __init__(self, stream: Unpacked, size: int) -> None:
        self._stream = stream
        self._left = size
        self._padding = -size % BLOCK_SIZE

    def read(self) -> Iterator[bytes]:
        while self._left:
            data = self._stream.read(min(self._left, BLOCK))
            if not data:
                raise Stop("truncated", "inside a member")
            self._left -= len(data)
            yield data

    def finish(self) -> None:
        if self._stream.skip(self._left) < self._left:
            raise Stop("truncated", "inside a member")
        self._stream.skip(self._padding)  # some writers leave the last padding out


def _header(stream: Unpacked) -> bytes:
    """The next header block; empty at the end of the archive."""
    block = stream.read(BLOCK_SIZE)
    if not block or not block.strip(b"\0"):
        return b""
    if len(block) < BLOCK_SIZE:
        raise Stop("truncated", "inside a header")
    stored = _number(block[148:156])
    unsigned = sum(block) - sum(block[148:156]) + 8 * 32
    # Some old writers summed signed bytes.
    if stored != unsigned and stored != unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
        raise Stop("corrupt", "a header's checksum is wrong, or this is no tar")
    return block


def _number(field: bytes) -> int:
    """Octal, or GNU's base 256; never negative."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise Stop("corrupt", "a negative or huge number in a header")
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip()
    if not text:
        return 0
    if not all(0x30 <= byte <= 0x37 for byte in text):
        raise Stop("corrupt", "a number in a header is not octal")
    return int(text, 8)


def _member(header: bytes, kind: bytes, size: int, extended: dict[str, str]) -> Member:
    path = _text(header[0:100])
    if header[257:263] == b"ustar\0" and header[345]:
        path = f"{_text(header[345:500])}/{path}"
    path = extended.get("path", path)
    target = extended.get("linkpath", _text(header[157:257]))
    word = KINDS.get(kind, "unknown")
    if "sparse" in extended:
        word = "sparse"
    if "size" in extended:
        if not extended["size"].isascii() or not extended["size"].isdigit() or len(extended["size"]) > 18:
            raise Stop("corrupt", "a size in an extended header is not a number")
        size = int(extended["size"])
    if word == "file" and path.endswith("/"):
        word = "folder"
    if word in ("link", "device", "fifo"):
        size = size if kind == b"1" else 0
    return Member(path, word, size, target)


def _extend(extended: dict[str, str], kind: bytes, data: bytes) -> None:
    if kind == b"L":
        extended["path"] = _text(data)
    elif kind == b"K":
        extended["linkpath"] = _text(data)
    else:
        for key, value in _pax(data):
            if key.startswith("GNU.sparse"):
                extended["sparse"] = "1"
            elif key in ("path", "linkpath", "size"):
                if kind == b"g":
                    raise Stop("header", f"a global header that sets {key}")
                extended[key] = value


def _pax(data: bytes) -> Iterator[tuple[str, str]]:
    """``<length> <key>=<value>\\n``, the length counting the whole record."""
    at = 0
    while at < len(data) and data[at]:
        blank = data.find(b" ", at, at + 8)
        digits = data[at:blank]
        if blank < 0 or not digits.isdigit():
            raise Stop("corrupt", "an extended header without a length")
        end = at + int(digits)
        record = data[blank + 1 : end]
        if end > len(data) or not record.endswith(b"\n") or b"=" not in record:
            raise Stop("corrupt", "an extended header that does not end where it says")
        key, _, value = record[:-1].partition(b"=")
        yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        at = end


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _skip(stream: Unpacked, size: int) -> None:
    if stream.skip(size) < size:
        raise Stop("truncated", "inside a member")
