"""Folders of files into blobs and back: hashed, cut, verified, in bounded memory. Not here: refs, manifests, caches."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from workbench.domain.errors import Corrupt, Refused, WorldError
from workbench.domain.ids import Digest, ObjectId
from workbench.domain.manifest import FileEntry
from workbench.ports.store import Objects
from workbench.store.payload.blobs import Blobs, BlobWriter
from workbench.store.payload.chunking import WHOLE_MAX, chunk_name, chunks
from workbench.store.payload.names import check_distinct, check_path, check_travels

_INLINE = 64 << 10  # smaller pieces are hashed on the spot: handing them over costs more


class Sha256:
    """A sha256 that is computed on another core while the caller does something else with the same bytes."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._hash = hashlib.sha256()
        self._running: Future[None] | None = None

    def update(self, data: bytes) -> None:
        self._wait()
        if len(data) < _INLINE:
            self._hash.update(data)
        else:
            self._running = self._pool.submit(self._hash.update, data)

    def digest(self) -> Digest:
        self._wait()
        return Digest(self._hash.hexdigest())

    def _wait(self) -> None:
        if self._running is not None:
            self._running.result()
            self._running = None


# --- in ---------------------------------------------------------------------------------------------------------------


def scan(folder: Path) -> list[str]:
    """The paths of all files below a folder, sorted. Refuses links, devices, sockets and names that hide something."""
    found: list[str] = []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                path = check_path(prefix + entry.name)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path + "/")
                elif entry.is_file(follow_symlinks=False):
                    found.append(path)
                else:
                    raise Refused(f"{path} is neither file nor folder", "a payload holds files and folders alone")
    check_distinct(found)
    return sorted(found)


def scan_to_publish(folder: Path) -> list[str]:
    """``scan``, and refuse what no other hub would take."""

    def read(path: str, size: int) -> bytes:
        with open(folder / path, "rb") as file:
            return file.read(size)

    paths = scan(folder)
    check_travels(paths, read)
    return paths


def store(folder: Path, paths: Sequence[str], writer: BlobWriter) -> tuple[dict[str, ObjectId], tuple[FileEntry, ...]]:
    """Write files of a folder, as ``scan`` found them: their ids by path in the tree (a large file has one a chunk),
    and their entries in a manifest."""
    blobs: dict[str, ObjectId] = {}
    files = []
    with ThreadPoolExecutor(1) as pool:
        for path in paths:
            entry, parts = _store_file(folder, path, writer, Sha256(pool))
            blobs |= parts
            files.append(entry)
    return blobs, tuple(files)


def _store_file(folder: Path, path: str, writer: BlobWriter, sha256: Sha256) -> tuple[FileEntry, dict[str, ObjectId]]:
    try:
        fd = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise WorldError(f"cannot read {path}: {error.strerror}") from error
    with open(fd, "rb", buffering=0) as stream:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"{path} is not a file", "a payload holds files and folders alone")
        size = status.st_size
        whole = size <= WHOLE_MAX
        pieces = iter([stream.read(size + 1)]) if whole else chunks(stream, path, size)
        parts: dict[str, ObjectId] = {}
        total = 0
        for index, piece in enumerate(pieces):
            sha256.update(piece)
            parts[path if whole else f"{path}/{chunk_name(index)}"] = writer.blob(piece)
            total += len(piece)
        if total != size:
            raise Refused(f"{path} changed while it was stored", "publish files that nobody writes any more")
    return FileEntry(path, sha256.digest(), size, 0 if whole else len(parts)), parts


# --- out --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Located:
    """A file and the blobs that are its content, in order."""

    entry: FileEntry
    blobs: tuple[ObjectId, ...]


def locate(objects: Objects, tree: ObjectId, prefix: str, files: Sequence[FileEntry]) -> list[Located]:
    """Find files in a tree, below ``prefix``; Corrupt when the tree does not hold what their entries say."""
    if len(files) == 1:
        return [_locate_one(objects, tree, prefix, files[0])]
    there = {entry.path: entry.id for entry in objects.walk(tree, prefix)} if files else {}
    return [Located(entry, tuple(_blob(there.get(path), path) for path in _paths(entry))) for entry in files]


def _paths(entry: FileEntry) -> list[str]:
    check_path(entry.path)
    if not entry.chunks:
        return [entry.path]
    return [f"{entry.path}/{chunk_name(index)}" for index in range(entry.chunks)]


def _locate_one(objects: Objects, tree: ObjectId, prefix: str, entry: FileEntry) -> Located:
    check_path(entry.path)
    path = f"{prefix}/{entry.path}"
    if not entry.chunks:
        found = objects.entry(tree, path)
        return Located(entry, (_blob(found.id if found and found.mode != 0o40000 else None, entry.path),))
    there = {chunk.path: chunk.id for chunk in objects.walk(tree, path)}
    names = [chunk_name(index) for index in range(entry.chunks)]
    return Located(entry, tuple(_blob(there.get(name), f"{entry.path}/{name}") for name in names))


def _blob(id: ObjectId | None, path: str) -> ObjectId:
    if id is None:
        raise Corrupt(f"{path} stands in the manifest but not in the tree", "fetch or build the artifact again")
    return id


def pour(blobs: Blobs, located: Sequence[Located], open_file: Callable[[FileEntry], BinaryIO]) -> Iterator[FileEntry]:
    """Write files one after the other to what ``open_file`` gives, closing nothing; each entry is yielded when its
    bytes are written and have the size and sha256 they must have. Corrupt names the file that has not."""
    with closing(blobs.read(id for file in located for id in file.blobs)) as pieces, ThreadPoolExecutor(1) as pool:
        for file in located:
            try:
                _pour_one(pieces, file, open_file(file.entry), Sha256(pool))
            except Corrupt as error:
                raise Corrupt(f"{file.entry.path}: {error.what}", error.hint or _REPAIR) from error
            yield file.entry


def _pour_one(pieces: Iterator[tuple[bytes, bool]], file: Located, out: BinaryIO, sha256: Sha256) -> None:
    total = ended = 0
    while ended < len(file.blobs):
        piece, ends = next(pieces)
        ended += ends
        total += len(piece)
        if total > file.entry.size:
            raise Corrupt("more bytes than its manifest says")
        sha256.update(piece)
        out.write(piece)
    if total != file.entry.size or sha256.digest() != file.entry.sha256:
        raise Corrupt("size or sha256 differ from the manifest")


_REPAIR = "fetch the artifact from another clone or a bundle, or build it again"


def write_into(folder: Path, pouring: Callable[[Callable[[FileEntry], BinaryIO]], Iterator[FileEntry]]) -> None:
    """Write the files of a ``pour`` into a private, empty folder."""
    current: list[BinaryIO] = []
    made = {folder}

    def create(entry: FileEntry) -> BinaryIO:
        path = folder / entry.path
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        current.append(open(path, "xb", buffering=0))  # noqa: SIM115 (closed below)
        return current[-1]

    try:
        for _ in pouring(create):
            current.pop().close()
    finally:
        for stream in current:
            stream.close()
