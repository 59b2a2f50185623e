"""How payload bytes enter and leave a repository, in bulk. Two ways behind one protocol.

``PackBlobs`` is for a Git directory: one new pack for each write, one ``git cat-file`` for each read. ``PortBlobs``
goes through the ``Objects`` port alone, one object at a time, and serves the memory repository. Not here: what the
blobs mean, and whether their sha256 is right.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Protocol

from workbench.domain.errors import Corrupt, ToolMissing
from workbench.domain.ids import ObjectId
from workbench.ports.store import Objects
from workbench.store.git import process
from workbench.store.git.reuse import Reuse
from workbench.store.payload.packs import Pack, object_id_of

PIECE = 1 << 20
# cat-file streams blobs above 1 MiB, and maps 32 MiB of a pack at most: else it counts as memory up to the pack's size.
_LEAN = ("-c", "core.bigFileThreshold=1m", "-c", "core.packedGitWindowSize=8m", "-c", "core.packedGitLimit=32m")
_AHEAD = 250  # requests sent before their answers are read, where the pipe takes so many
_AT_ONCE = select.PIPE_BUF // 64  # of 41 bytes: a write of up to PIPE_BUF bytes goes in whole or not at all, pipe(7)
_F_SETPIPE_SZ = 1031

Pieces = Generator[tuple[bytes, bool], None, None]
_Node = dict[str, "ObjectId | _Node"]


class BlobWriter(Protocol):
    def blob(self, data: bytes) -> ObjectId: ...

    def tree(self, files: Mapping[str, ObjectId]) -> ObjectId:
        """A tree of blobs by path; folders are made as the paths say. ``{}`` is the empty tree."""
        ...


class Blobs(Protocol):
    def writer(self) -> AbstractContextManager[BlobWriter]:
        """What is written is durable and visible when the block ends well, and is thrown away when it does not."""
        ...

    def read(self, ids: Iterable[ObjectId]) -> Pieces:
        """The bytes of many blobs in order, as pieces of at most 1 MiB, each with whether its blob ends there; an empty
        blob gives one empty piece. Corrupt when a blob is missing or cannot be inflated. Close it when you stop early.
        """
        ...


class PortBlobs:
    """Blobs through the ``Objects`` port."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    @contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        yield _PortWriter(self._objects)

    def read(self, ids: Iterable[ObjectId]) -> Pieces:
        for id in ids:
            if not self._objects.exists(id):
                raise Corrupt(f"blob {id} is missing", "fetch the artifact again, or run `workbench doctor`")
            data = self._objects.read_blob(id)
            for start in range(0, len(data) or 1, PIECE):
                yield data[start : start + PIECE], start + PIECE >= len(data)


class _PortWriter:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def blob(self, data: bytes) -> ObjectId:
        return self._objects.add_blob(data)

    def tree(self, files: Mapping[str, ObjectId]) -> ObjectId:
        return self._objects.add_tree(None, dict(files))


class PackBlobs:
    """Blobs of a Git directory. ``objects`` answers which are there already: those are not written again."""

    def __init__(self, git_dir: Path, objects: Objects) -> None:
        self._git_dir = git_dir
        self._objects = objects

    @contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        folder = self._git_dir / "objects"
        reuse = Reuse(folder)
        with Pack(folder) as pack:
            yield _PackWriter(pack, lambda id: self._objects.exists(id) and reuse.keep(id))
            pack.finish()

    def read(self, ids: Iterable[ObjectId]) -> Pieces:
        command = process.command(self._git_dir, *_LEAN, "cat-file", "--batch")
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=process.environment(),
                bufsize=PIECE,
            )
        except FileNotFoundError as error:
            raise ToolMissing("the git program is not installed", "install it: apt-get install git") from error
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(OSError):  # only faster
            fcntl.fcntl(child.stdout.fileno(), _F_SETPIPE_SZ, PIECE)
        try:
            yield from _conversation(child.stdin, child.stdout, iter(ids))
        finally:
            with suppress(BrokenPipeError):
                child.stdin.close()
            child.stdout.close()
            child.wait()


def _conversation(ask: IO[bytes], answer: IO[bytes], ids: Iterator[ObjectId]) -> Pieces:
    """Ask ``cat-file --batch`` for blobs, some ahead, and hand on what it answers.

    A pipe may hold as little as a page: asking never waits while there is an answer to read, or both sides could.
    """
    asked: deque[ObjectId] = deque()
    unsent: list[ObjectId] = []
    os.set_blocking(ask.fileno(), False)
    while True:
        while len(asked) < _AHEAD:
            unsent = unsent or list(islice(ids, _AT_ONCE))
            if not unsent or not _sent(ask, unsent, wait=not asked):
                break
            asked.extend(unsent)
            unsent = []
        if not asked:
            return
        id = asked.popleft()
        missing = _answer_header(answer.readline(), id)
        while True:
            piece = answer.read(min(missing, PIECE))
            missing -= len(piece)
            if (missing and not piece) or (not missing and answer.read(1) != b"\n"):
                raise _corrupt(id, "cannot be inflated")
            yield piece, not missing
            if not missing:
                break


def _sent(ask: IO[bytes], ids: Sequence[ObjectId], *, wait: bool) -> bool:
    """Ask for some blobs at once, unless the pipe has no room for that."""
    request = "".join(f"{id}\n" for id in ids).encode()
    while True:
        try:
            os.write(ask.fileno(), request)
        except BlockingIOError:
            if not wait:
                return False
            room = select.poll()
            room.register(ask, select.POLLOUT)
            room.poll()
        except BrokenPipeError:
            return True  # the end of its answers tells
        else:
            return True


def _answer_header(line: bytes, id: ObjectId) -> int:
    parts = line.split()
    if len(parts) == 3 and parts[0] == id.encode() and parts[1] == b"blob":
        return int(parts[2])
    raise _corrupt(id, "is missing" if line.endswith(b" missing\n") else "cannot be read")


def _corrupt(id: ObjectId, what: str) -> Corrupt:
    return Corrupt(f"blob {id} {what}", "fetch the artifact again, or run `workbench doctor`")


class _PackWriter:
    """``stands`` says whether an object is there, and will be for as long as it takes to name it."""

    def __init__(self, pack: Pack, stands: Callable[[ObjectId], bool]) -> None:
        self._pack = pack
        self._stands = stands
        self._reused: set[ObjectId] = set()

    def blob(self, data: bytes) -> ObjectId:
        return self._add("blob", data)

    def tree(self, files: Mapping[str, ObjectId]) -> ObjectId:
        root: _Node = {}
        for path, id in files.items():
            *folders, name = path.split("/")
            node = root
            for folder in folders:
                child = node.setdefault(folder, {})
                assert isinstance(child, dict), f"{path} is below a file"
                node = child
            assert name not in node, f"{path} is named twice"
            node[name] = id
        return self._tree(root)

    def _tree(self, node: _Node) -> ObjectId:
        lines = []
        for name, child in node.items():
            if isinstance(child, dict):
                lines.append((name.encode() + b"/", b"40000 " + name.encode(), self._tree(child)))
            else:
                lines.append((name.encode(), b"100644 " + name.encode(), child))
        data = b"".join(line + b"\0" + bytes.fromhex(id) for _, line, id in sorted(lines))
        return self._add("tree", data)

    def _add(self, kind: str, data: bytes) -> ObjectId:
        id = object_id_of(kind, data)
        if id in self._pack or id in self._reused:
            return id
        if self._stands(id):
            self._reused.add(id)
        else:
            self._pack.add(kind, id, data)
        return id


def read_whole(blobs: Blobs, ids: Sequence[ObjectId]) -> bytes:
    return b"".join(piece for piece, _ in blobs.read(ids))
