"""One pack file, written front to back: the fastest durable way to add many or large objects to a repository.

Git's own writers hash with collision detection and deflate even at level 0, at 80 to 100 MiB/s; this one copies stored
deflate blocks and is bounded by the disk (decision record ``0006-own-pack-writer``). What it writes is an ordinary
version 2 pack and index, and the tests read it back with git, dulwich and libgit2. Sources: gitformat-pack(5),
RFC 1950 and RFC 1951. Not here: deltas, reading, and which objects are worth writing.

Nothing is visible before :meth:`Pack.finish`; killed before, a ``tmp_pack_*`` file is left that ``git prune`` removes.
"""

from __future__ import annotations

import hashlib
import os
import queue
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from workbench.domain.errors import WorldError
from workbench.domain.ids import ObjectId
from workbench.system import durable

TYPES = {"commit": 1, "tree": 2, "blob": 3, "tag": 4}

_STORED_MAX = 65_535  # bytes in one stored deflate block
_BATCH_BYTES = 4 << 20
_QUEUE_BATCHES = 3
_LOOK_S = 1.0  # a wait for the writing thread looks this often whether it still lives
_SYNC_BYTES = 64 << 20  # the disk is kept busy while we still compute
_SAMPLE = 4096
_WORTH = 0.6  # deflate only what shrinks below this: text does, float weights (0.8 to 0.93) cost more than they give
_LARGE_OFFSET = 1 << 31


def object_id_of(kind: str, data: bytes) -> ObjectId:
    """Git's name of an object."""
    return ObjectId(_sha1(kind, data).hexdigest())


def _sha1(kind: str, data: bytes) -> hashlib._Hash:
    digest = hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)), usedforsecurity=False)
    digest.update(data)
    return digest


def worth_deflating(data: bytes) -> bool:
    """Whether a sample from the middle shrinks enough to pay for deflate."""
    if len(data) < 128:
        return False
    start = max(0, len(data) // 2 - _SAMPLE // 2)
    sample = data[start : start + _SAMPLE]
    return len(zlib.compress(sample, 1)) < _WORTH * len(sample)


def deflate(data: bytes, level: int) -> bytes:
    """A zlib stream; level 0 is built from stored blocks, at the speed of a copy."""
    if level:
        return zlib.compress(data, level)
    parts: list[bytes | memoryview] = [b"\x78\x01"]
    view = memoryview(data)
    for start in range(0, len(data), _STORED_MAX):
        block = view[start : start + _STORED_MAX]
        last = start + _STORED_MAX >= len(data)
        parts += (struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block)
    if not data:
        parts.append(b"\x01\x00\x00\xff\xff")
    parts.append(struct.pack(">I", zlib.adler32(data)))
    return b"".join(parts)


def _entry_header(kind: str, size: int) -> bytes:
    """Type and size of a pack entry: 4 bits of size in the first byte, then 7 at a time."""
    out = bytearray()
    byte = TYPES[kind] << 4 | size & 15
    size >>= 4
    while size:
        out.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    out.append(byte)
    return bytes(out)


class Pack:
    """Objects on their way into one new pack in ``objects`` (a repository's ``objects`` folder).

    :meth:`add` queues an object; a second thread encodes and writes, a third keeps the disk busy. Memory is
    bounded by a few batches of 4 MiB. Leaving the ``with`` block without :meth:`finish` throws all away.
    """

    def __init__(self, objects: Path) -> None:
        self._folder = objects / "pack"
        self._folder.mkdir(exist_ok=True)
        self._path: Path | None = None
        self._fd = -1
        self._offset = 12
        self._entries: list[tuple[bytes, int, int]] = []  # id, crc32, offset
        self._known: set[bytes] = set()
        self._batch: list[tuple[str, bytes, bytes]] = []
        self._batch_bytes = 0
        self._queue: queue.Queue[list[tuple[str, bytes, bytes]] | None] = queue.Queue(_QUEUE_BATCHES)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None  # the first that a thread of ours ended with
        self._all_written = False

    def __enter__(self) -> Pack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def __contains__(self, id: ObjectId) -> bool:
        return bytes.fromhex(id) in self._known

    def add(self, kind: str, id: ObjectId, data: bytes) -> None:
        """Queue an object whose name the caller has computed; one that is already in this pack is passed over."""
        name = bytes.fromhex(id)
        if name in self._known:
            return
        self._known.add(name)
        self._batch.append((kind, name, data))
        self._batch_bytes += len(data) + 64
        if self._batch_bytes >= _BATCH_BYTES:
            self._flush()

    def finish(self) -> None:
        """Make the pack durable and visible, pack before index. Nothing is written for no objects."""
        self._flush()
        self._stop()
        self._check()
        if self._path is None:
            return
        assert self._all_written, "the pack writer ended before its queue did"
        try:
            checksum = self._seal()
            self._publish(checksum)
        except (OSError, MemoryError) as error:
            raise _failed(self._folder, error) from error

    def _flush(self) -> None:
        self._check()
        if not self._batch:
            return
        if self._thread is None:
            self._open()
            self._thread = _started(self._write_batches, "pack-writer")
        self._hand_over(self._batch)
        self._batch, self._batch_bytes = [], 0

    def _hand_over(self, batch: list[tuple[str, bytes, bytes]] | None) -> None:
        """To the writing thread, for as long as it lives: nobody else empties the queue."""
        assert self._thread is not None
        while self._thread.is_alive():
            with suppress(queue.Full):
                self._queue.put(batch, timeout=_LOOK_S)
                return
        self._check()

    def _open(self) -> None:
        try:
            self._fd, path = tempfile.mkstemp(prefix="tmp_pack_", dir=self._folder)
            self._path = Path(path)
            os.lseek(self._fd, 12, os.SEEK_SET)
        except OSError as error:
            raise _failed(self._folder, error) from error

    def _stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        while thread.is_alive():
            with suppress(queue.Full):
                self._queue.put(None, timeout=_LOOK_S)
                break
        thread.join()

    def _check(self) -> None:
        if isinstance(self._error, OSError | MemoryError):
            raise _failed(self._folder, self._error) from self._error
        if self._error is not None:
            raise self._error

    def _write_batches(self) -> None:
        """The writing thread. Whatever ends it is kept for the caller: a pack that lacks a batch is never sealed."""
        sync: threading.Thread | None = None
        try:
            unsynced = 0
            while (batch := self._queue.get()) is not None:
                unsynced += self._write(batch)
                if unsynced >= _SYNC_BYTES and (sync is None or not sync.is_alive()):
                    unsynced = 0
                    sync = _started(self._sync_early, "pack-sync")
            self._all_written = True
        except BaseException as error:  # noqa: BLE001 - out of memory, most likely: it is raised again in ``_check``
            self._error = self._error or error
        finally:
            if sync is not None:
                sync.join()

    def _sync_early(self) -> None:
        try:
            os.fdatasync(self._fd)
        except BaseException as error:  # noqa: BLE001 - a failed writeback is reported once: it must not be lost here
            self._error = self._error or error

    def _write(self, batch: Sequence[tuple[str, bytes, bytes]]) -> int:
        encoded: list[bytes] = []
        entries: list[tuple[bytes, int, int]] = []
        total = 0
        for kind, name, data in batch:
            header = _entry_header(kind, len(data))
            stream = deflate(data, 1 if worth_deflating(data) else 0)
            entries.append((name, zlib.crc32(stream, zlib.crc32(header)), self._offset + total))
            encoded += (header, stream)
            total += len(header) + len(stream)
        durable.write_all(self._fd, b"".join(encoded))
        self._offset += total
        self._entries += entries  # only now: the index names nothing that was not written
        return total

    def _seal(self) -> bytes:
        """Write the header now that the count is known, and hash the whole while the disk takes in the rest."""
        os.pwrite(self._fd, struct.pack(">4sII", b"PACK", 2, len(self._entries)), 0)
        sync = _started(self._sync_early, "pack-sync")
        try:
            digest = hashlib.sha1(usedforsecurity=False)
            buffer = memoryview(bytearray(1 << 20))
            position = 0
            while count := os.preadv(self._fd, [buffer], position):
                digest.update(buffer[:count])
                position += count
        finally:
            sync.join()
        self._check()
        assert position == self._offset, f"{position} bytes in the pack, {self._offset} were written"
        checksum = digest.digest()
        os.pwrite(self._fd, checksum, position)
        os.fchmod(self._fd, 0o444)
        os.fsync(self._fd)
        return checksum

    def _publish(self, checksum: bytes) -> None:
        assert self._path is not None
        final = _free_name(self._folder, checksum)
        index_fd, index_path = tempfile.mkstemp(prefix="tmp_idx_", dir=self._folder)
        try:
            try:
                durable.write_all(index_fd, index_of(self._entries, checksum))
                os.fchmod(index_fd, 0o444)
                os.fsync(index_fd)
            finally:
                os.close(index_fd)
            self._path.rename(final)
            self._path = None
            Path(index_path).rename(final.with_suffix(".idx"))
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(index_path)
            raise
        durable.sync_folder(self._folder)


def _free_name(folder: Path, checksum: bytes) -> Path:
    """``pack-<checksum>.pack``. Where a cruft pack of the same bytes has that name, another one: else the ages of its
    objects would be taken for those of ours. Git does not compare the name with the checksum."""
    path = folder / f"pack-{checksum.hex()}.pack"
    while path.with_suffix(".mtimes").exists():
        checksum = hashlib.sha1(checksum, usedforsecurity=False).digest()
        path = folder / f"pack-{checksum.hex()}.pack"
    return path


def index_of(entries: Sequence[tuple[bytes, int, int]], checksum: bytes) -> bytes:
    """A version 2 pack index of (id, crc32, offset)."""
    entries = sorted(entries)
    fanout = [0] * 256
    for name, _, _ in entries:
        fanout[name[0]] += 1
    for byte in range(1, 256):
        fanout[byte] += fanout[byte - 1]
    large = [offset for _, _, offset in entries if offset >= _LARGE_OFFSET]
    numbers = {offset: _LARGE_OFFSET | index for index, offset in enumerate(large)}
    body = b"".join(
        (
            b"\xfftOc\x00\x00\x00\x02",
            struct.pack(">256I", *fanout),
            b"".join(name for name, _, _ in entries),
            struct.pack(f">{len(entries)}I", *(crc for _, crc, _ in entries)),
            struct.pack(f">{len(entries)}I", *(numbers.get(offset, offset) for _, _, offset in entries)),
            struct.pack(f">{len(large)}Q", *large),
            checksum,
        )
    )
    return body + hashlib.sha1(body, usedforsecurity=False).digest()


def _started(work: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def _failed(folder: Path, error: OSError | MemoryError) -> WorldError:
    what = f"cannot write objects to {folder}"
    if isinstance(error, MemoryError):
        return WorldError(f"{what}: out of memory", "end other programs, or allow this one 100 MiB more")
    return WorldError(f"{what}: {error.strerror}", "free disk space or check the disk")
