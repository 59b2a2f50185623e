"""``ports.store.Journals``: append-only streams. Appended is durable at once; sealed segments are commits.

A record is one line, ``<sequence number> <crc32 of the rest, 8 hex digits> <canonical JSON>``. Appends go to one local
file for each stream, ``<folder>/<stream>.open``, under a lock and with fsync. Sealing commits that file to
``refs/workbench/journal/<stream>``, whose tree holds ``format`` and ``<first // 1,000,000>/<first>-<last>``. Killed
anywhere, a line that was cut off is dropped by whoever appends next, and a file that was sealed but not yet removed is
known by its numbers. A bad line with a record behind it was not cut off but damaged: nothing is dropped then.
"""

from __future__ import annotations

import os
import re
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.domain.canonical import canonical_json
from workbench.domain.errors import Corrupt, Refused, WorldError
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import RefMove
from workbench.domain.reading import BadInput, Limits, anything, mapping, parse_json, printed
from workbench.domain.refs import Journal
from workbench.ports.store import Objects, Refs
from workbench.system import durable, locks

FORMAT = b"1\n"
RECORD_MAX = 4 << 20  # bytes
SEGMENT_MAX = 8 << 20  # an open file is sealed before it grows beyond
LIMITS = Limits(size_bytes=RECORD_MAX, values=1_000_000)
_RECORD = mapping(anything(), most=LIMITS.values)
_LINE = re.compile(rb"([0-9]{1,12}) ([0-9a-f]{8}) (.*)", re.DOTALL)
_SEGMENT = re.compile(r"[0-9]{6}/([0-9]{12})-([0-9]{12})")
_PER_FOLDER = 1_000_000
_PATIENCE_S = 60.0  # the longest that is done with a stream locked is to seal 8 MiB
_WHO = "workbench <workbench@localhost>"

Record = tuple[int, Mapping[str, Any]]


@dataclass(frozen=True)
class _Tail:
    """An open file at its end. Its descriptor is kept, so that its inode cannot come to stand for another file."""

    fd: int
    inode: int
    size: int
    next: int


class StoredJournals:
    """Journals over any repository; ``folder`` holds the open files and nothing else."""

    def __init__(self, objects: Objects, refs: Refs, folder: Path, *, now_ms: Callable[[], int]) -> None:
        self._objects = objects
        self._refs = refs
        self._folder = folder
        self._now_ms = now_ms
        self._tails: dict[str, _Tail] = {}
        self._close = weakref.finalize(self, _close_all, self._tails)

    # --- the port -----------------------------------------------------------------------------------------------------

    def append(self, stream: str, record: Mapping[str, Any]) -> int:
        text = _encoded(record)
        with self._locked(stream) as path:
            with suppress(FileNotFoundError):
                if path.stat().st_size + len(text) > SEGMENT_MAX:
                    self._seal(stream, path)
            return self._append(stream, path, text)

    def seal(self, stream: str) -> ObjectId | None:
        with self._locked(stream) as path:
            self._seal(stream, path)
        return self._refs.get(str(Journal(stream)))

    def read(self, stream: str, after: int = -1) -> Iterator[Record]:
        with self._locked(stream, shared=True) as path:
            top = self._refs.get(str(Journal(stream)))
            data = _contents(path)
        sealed = self._segments(stream, top)
        for first, last, blob in sealed:
            if last > after:
                yield from self._sealed_records(stream, first, last, blob, after)
        done = max(after, sealed[-1][1] if sealed else -1)
        yield from (record for record in _whole(stream, path, data)[0] if record[0] > done)

    # --- appending ----------------------------------------------------------------------------------------------------

    def _append(self, stream: str, path: Path, text: bytes) -> int:
        tail = self._tail(stream, path)
        line = _line(tail.next, text)
        try:
            durable.write_all(tail.fd, line)
            os.fsync(tail.fd)
        except OSError:
            with suppress(OSError):
                os.ftruncate(tail.fd, tail.size)
            self._forget(stream)
            raise
        self._tails[stream] = replace(tail, size=tail.size + len(line), next=tail.next + 1)
        return tail.next

    def _tail(self, stream: str, path: Path) -> _Tail:
        """Where the next record goes; what a killed writer left behind the last whole line is cut off."""
        known = self._tails.get(stream)
        with suppress(FileNotFoundError):
            status = path.lstat()
            if known is not None and (known.inode, known.size) == (status.st_ino, status.st_size):
                return known
        self._forget(stream)
        new = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if new:
                durable.sync_folder(path.parent)
                durable.sync_folder(path.parent.parent)  # whoever made the folder may not have come so far
            records, good = _whole(stream, path, _contents(path))
            os.ftruncate(fd, good)
            sealed = self._segments(stream, self._refs.get(str(Journal(stream))))
            following = max(sealed[-1][1] + 1 if sealed else 0, records[-1][0] + 1 if records else 0)
            tail = _Tail(fd, os.fstat(fd).st_ino, good, following)
        except BaseException:
            os.close(fd)
            raise
        self._tails[stream] = tail
        return tail

    def _forget(self, stream: str) -> None:
        tail = self._tails.pop(stream, None)
        if tail is not None:
            os.close(tail.fd)

    # --- sealing ------------------------------------------------------------------------------------------------------

    def _seal(self, stream: str, path: Path) -> None:
        data = _contents(path)
        records, _ = _whole(stream, path, data)
        ref = Journal(stream)
        old = self._refs.get(str(ref))
        sealed = self._segments(stream, old)
        done = sealed[-1][1] if sealed else -1
        if records and records[-1][0] > done:
            fresh = [record for record in records if record[0] > done]
            first, last = fresh[0][0], fresh[-1][0]
            tree = self._objects.add_tree(
                self._objects.commit(old).tree if old else None, {**_segments_of(fresh), "format": FORMAT}
            )
            commit = self._objects.add_commit(
                tree,
                parents=[old] if old else [],
                message=f"journal {stream}: {first} to {last}",
                who=_WHO,
                time_ms=self._now_ms(),
            )
            self._refs.swap([RefMove(ref, old or ZERO_ID, commit)])
        path.unlink(missing_ok=True)
        self._forget(stream)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _segments(self, stream: str, top: ObjectId | None) -> list[tuple[int, int, ObjectId]]:
        """First and last number and blob of each sealed segment, in order."""
        if top is None:
            return []
        found = []
        for entry in self._objects.walk(top):
            if entry.path == "format":
                if self._objects.read_blob(entry.id) != FORMAT:
                    raise Corrupt(f"journal {stream} has an unknown format", "upgrade workbench")
                continue
            numbers = _SEGMENT.fullmatch(entry.path)
            if numbers is None:
                raise Corrupt(f"journal {stream} holds {printed(entry.path)}", "run `workbench doctor`")
            found.append((int(numbers[1]), int(numbers[2]), entry.id))
        return sorted(found)

    def _sealed_records(self, stream: str, first: int, last: int, blob: ObjectId, after: int) -> Iterator[Record]:
        data = self._objects.read_blob(blob)
        records, good = _complete(data)
        if good != len(data) or [number for number, _ in records] != list(range(first, last + 1)):
            raise Corrupt(f"journal {stream}: segment {first} to {last} is damaged", "fetch it from another clone")
        yield from (record for record in records if record[0] > after)

    # --- places and locks ---------------------------------------------------------------------------------------------

    @contextmanager
    def _locked(self, stream: str, *, shared: bool = False) -> Iterator[Path]:
        """The stream's open file, locked between processes. A lock of its own, because the file comes and goes."""
        Journal(stream)  # checks the name
        try:
            if not self._folder.is_dir():
                durable.make_folder(self._folder)
            lock = self._folder / f"{stream}.lock"
            with locks.held(lock, shared=shared, patience_s=_PATIENCE_S, mode=0o600):
                yield self._folder / f"{stream}.open"
        except OSError as error:
            raise WorldError(
                f"journal {stream} cannot be used: {error.strerror}", "check the disk and its owner"
            ) from error


def _encoded(record: Mapping[str, Any]) -> bytes:
    """What is written can be read again: Refused for a record beyond the limits."""
    text = canonical_json(dict(record))
    try:
        parse_json(text, LIMITS)
    except BadInput as bad:
        raise Refused(f"a journal cannot hold this record: {bad}", "store large data as payload") from None
    return text


def _line(number: int, text: bytes) -> bytes:
    return b"%d %08x %b\n" % (number, zlib.crc32(text), text)


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _segments_of(records: list[Record]) -> dict[str, bytes]:
    """Records as segments without gaps: there is one only where a damaged line was removed by hand."""
    lines: dict[int, list[bytes]] = {}  # by the number of the segment's first
    first = following = -1
    for number, record in records:
        first = first if number == following else number
        lines.setdefault(first, []).append(_line(number, canonical_json(record)))
        following = number + 1
    return {
        f"{first // _PER_FOLDER:06d}/{first:012d}-{first + len(segment) - 1:012d}": b"".join(segment)
        for first, segment in lines.items()
    }


def _whole(stream: str, path: Path, data: bytes) -> tuple[list[Record], int]:
    """The records of an open file, and how many bytes they take; Corrupt when others lie behind a line that is none."""
    records, good = _complete(data)
    behind = data[good:].split(b"\n")[1:-1]
    if any(_record(line) for line in behind):
        raise Corrupt(
            f"journal {stream}: line {len(records) + 1} of {path} is damaged; the records behind it are kept",
            "copy the file, delete that line from it, and run the command again",
        )
    return records, good


def _complete(data: bytes) -> tuple[list[Record], int]:
    """The whole records at the start of ``data``, with rising numbers, and how many bytes they take."""
    records: list[Record] = []
    good = 0
    while (end := data.find(b"\n", good)) >= 0:
        record = _record(data[good:end])
        if record is None or (records and record[0] <= records[-1][0]):
            break
        records.append(record)
        good = end + 1
    return records, good


def _record(line: bytes) -> Record | None:
    parts = _LINE.fullmatch(line)
    if parts is None or b"%08x" % zlib.crc32(parts[3]) != parts[2]:
        return None
    try:
        return int(parts[1]), _RECORD.read(parse_json(parts[3], LIMITS), "")
    except BadInput:
        return None


def _close_all(tails: dict[str, _Tail]) -> None:
    for tail in tails.values():
        os.close(tail.fd)
    tails.clear()
