"""The members of a zip, from its central directory, in bounded memory. Not here: deciding what is kept.

Stored and deflated members of archives below 4 GiB. Refused as a whole: ZIP64, members that overlap (the quine and
overlap bombs), more entries than allowed, a directory that does not lie where it says.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from workbench.fetch.decompress import BLOCK, Stop
from workbench.fetch.limits import MIB, Limits
from workbench.fetch.tar_reader import Member

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
DIRECTORY_BYTES = 16 * MIB


class _Entry:
    def __init__(self, fields: tuple[int, ...], name: bytes) -> None:
        (_, _, flags, self.method, _, _, self.crc, self.packed, self.size, *_, external, self.offset) = fields
        self.encrypted = bool(flags & 0x41)
        self.name = name.decode("utf-8" if flags & 0x800 or _is_utf8(name) else "cp437", "surrogateescape")
        self.mode = external >> 16


def members(source: BinaryIO, limits: Limits) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Each member with its content, which may be left unread, in the order of the data."""
    entries, directory_at = _directory(source, limits)
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        start = _data_start(source, entry, directory_at)
        if entry.offset < end:
            raise Stop("bomb", "members overlap")
        end = start + entry.packed
        if end > directory_at:
            raise Stop("corrupt", "a member reaches into the directory")
        yield Member(entry.name, _kind(entry), entry.size), _content(source, entry, start, limits)


def _directory(source: BinaryIO, limits: Limits) -> tuple[list[_Entry], int]:
    size = source.seek(0, os.SEEK_END)
    tail_at = max(0, size - _END.size - 65_535)
    source.seek(tail_at)
    tail = source.read()
    found = tail.rfind(b"PK\5\6")
    if found < 0 or len(tail) - found < _END.size:
        raise Stop("corrupt", "no end of central directory")
    _, disk, first_disk, here, count, length, at, _ = _END.unpack_from(tail, found)
    if disk or first_disk or here != count:
        raise Stop("corrupt", "an archive of several disks")
    if 0xFFFF in (count, here) or 0xFFFFFFFF in (length, at):
        raise Stop("format", "ZIP64 is not read")
    if count > limits.members:
        raise Stop("count", f"more than {limits.members} members")
    if length > DIRECTORY_BYTES or at + length != tail_at + found:
        raise Stop("corrupt", "the central directory does not lie where it says")
    source.seek(at)
    return list(_entries(source.read(length), count)), at


def _entries(data: bytes, count: int) -> Iterator[_Entry]:
    at = 0
    for _ in range(count):
        if len(data) - at < _CENTRAL.size or data[at : at + 4] != b"PK\1\2":
            raise Stop("corrupt", "the central directory is cut short")
        fields = _CENTRAL.unpack_from(data, at)
        name_len, extra_len, comment_len = fields[10:13]
        name = data[at + _CENTRAL.size : at + _CENTRAL.size + name_len]
        yield _Entry(fields[1:], name)
        at += _CENTRAL.size + name_len + extra_len + comment_len
    if at != len(data):
        raise Stop("corrupt", "the central directory holds more than it says")


def _data_start(source: BinaryIO, entry: _Entry, directory_at: int) -> int:
    if entry.offset + _LOCAL.size > directory_at:
        raise Stop("corrupt", "a member lies outside the archive")
    source.seek(entry.offset)
    fields = _LOCAL.unpack(source.read(_LOCAL.size))
    if fields[0] != b"PK\3\4":
        raise Stop("corrupt", "no member where the directory says")
    name = source.read(fields[9])
    if name.decode("utf-8" if _is_utf8(name) else "cp437", "surrogateescape") != entry.name:
        raise Stop("corrupt", "a member has two names")
    return int(entry.offset + _LOCAL.size + fields[9] + fields[10])


def _kind(entry: _Entry) -> str:
    if entry.encrypted:
        return "encrypted"
    kinds = {0o120000: "link", 0o020000: "device", 0o060000: "device", 0o010000: "fifo", 0o140000: "socket"}
    if (word := kinds.get(entry.mode & 0o170000)) is not None:
        return word
    if entry.name.endswith("/"):
        return "folder"
    return "file" if entry.method in (0, 8) else "compression"


def _content(source: BinaryIO, entry: _Entry, start: int, limits: Limits) -> Iterator[bytes]:
    source.seek(start)
    left, given, crc = entry.packed, 0, 0
    decoder = zlib.decompressobj(-15) if entry.method == 8 else None
    while True:
        tail = decoder.unconsumed_tail if decoder else b""
        data = tail or source.read(min(left, BLOCK))
        left -= 0 if tail else len(data)
        try:
            block = decoder.decompress(data, BLOCK) if decoder else data
        except zlib.error as error:
            raise Stop("corrupt", f"a member is broken: {error}") from None
        if not block:
            if decoder is not None and not decoder.eof and data:
                continue
            break
        given += len(block)
        if given > entry.size or given > entry.packed * limits.ratio + limits.ratio_slack_bytes:
            raise Stop("bomb", "a member unpacks to more than it says")
        crc = zlib.crc32(block, crc)
        yield block
    if given != entry.size or crc != entry.crc:
        raise Stop("corrupt", "a member's size or checksum is wrong")


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
