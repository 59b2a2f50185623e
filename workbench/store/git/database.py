"""Raw objects of a Git repository: read through one ``git cat-file`` pipe, written through pygit2 with fsync.

The pipe reads without ``import pygit2`` (a tenth of a second that a light command does not have) and streams big blobs
in bounded memory. Every small object is hashed again when it is read. Not here: what the bytes mean (``encoding``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from workbench.domain.errors import Corrupt, NotFound, Refused, WorkbenchError, WorldError
from workbench.domain.ids import ObjectId, object_id
from workbench.store.git import process
from workbench.store.git.encoding import object_id_of
from workbench.store.git.reuse import Reuse, has_cruft

if TYPE_CHECKING:
    import pygit2

READ_LIMIT_BYTES = 64 << 20
ANSWER_S = 120.0  # for git to answer, or to give the next piece; it does so in milliseconds
_WRITE_ATTEMPTS = 10
_PIECE_BYTES = 1 << 20
_RESTORE = "run `workbench doctor`; restore the object from a clone or a bundle"


class Database(Protocol):
    """Where raw objects are kept."""

    def header(self, id: ObjectId) -> tuple[str, int] | None:
        """Kind and size; None where there is no such object."""
        ...

    def read(self, id: ObjectId) -> tuple[str, bytes]:
        """Kind and content, checked against the id; NotFound, or Refused above the limit."""
        ...

    def stream(self, id: ObjectId, out: Callable[[bytes], object]) -> int:
        """Hand a blob's content over in pieces; its size. Not checked against the id: the caller has a sha256."""
        ...

    def write(self, kind: str, data: bytes) -> ObjectId: ...

    def abbreviated(self, prefix: str) -> Sequence[ObjectId]:
        """The objects whose id starts with ``prefix`` (16 at most)."""
        ...


class GitDatabase:
    """``object_dirs``: further object folders to read from (a quarantine); with them nothing can be written."""

    def __init__(self, git_dir: Path, *, object_dirs: Sequence[Path] = ()) -> None:
        self._git_dir = git_dir
        self._read_only = bool(object_dirs)
        self._lock = threading.Lock()
        self._env = process.environment(object_dirs)
        self._pipe = process.Service(
            git_dir, "-c", "core.bigFileThreshold=1m", "cat-file", "--batch-command", env=self._env
        )
        self._writer: pygit2.Odb | None = None

    def header(self, id: ObjectId) -> tuple[str, int] | None:
        with self._lock:
            return self._ask("info", id)

    def read(self, id: ObjectId) -> tuple[str, bytes]:
        with self._lock:
            answer = self._ask("contents", id)
            if answer is None:
                raise self._missing(id)
            kind, size = answer
            if size > READ_LIMIT_BYTES:
                self._drop()
                raise Refused(f"object {id} is {size} bytes; {READ_LIMIT_BYTES} can be read at once", "stream it")
            data = self._take(id, size)
            self._take(id, 1)
        if object_id_of(kind, data) != id:
            raise Corrupt(f"object {id} does not match its id", _RESTORE)
        return kind, data

    def stream(self, id: ObjectId, out: Callable[[bytes], object]) -> int:
        with self._lock:
            answer = self._ask("contents", id)
            if answer is None:
                raise self._missing(id)
            size = left = answer[1]
            try:
                while left:
                    piece = self._take(id, min(left, _PIECE_BYTES))
                    left -= len(piece)
                    out(piece)
                self._take(id, 1)
            except BaseException:
                self._drop()
                raise
            return size

    def write(self, kind: str, data: bytes) -> ObjectId:
        if self._read_only:
            raise Refused("this view of the repository is read-only", "open the repository without object_dirs")
        import pygit2

        objects = self._git_dir / "objects"
        beside_cruft = has_cruft(objects)
        if beside_cruft and Reuse(objects).keep(id := object_id_of(kind, data)):
            return id
        with self._lock:
            if self._writer is None:
                self._writer = _open_for_writing(objects)
            for attempt in range(_WRITE_ATTEMPTS):
                try:
                    # Asked to write what a cruft pack holds, libgit2 would find it there and write nothing.
                    writer = _loose_alone(objects) if beside_cruft else self._writer
                    return ObjectId(str(writer.write(_kind_number(kind), data)))
                except (pygit2.GitError, OSError) as error:
                    # `git prune` removes empty folders, also the one that libgit2 has just made for the object.
                    if "No such file" not in str(error) or attempt + 1 == _WRITE_ATTEMPTS:
                        said = process.write_error(objects, len(data) + 4096) or str(error)
                        raise process.explain(f"storing a {kind}", said) from error
        raise AssertionError("unreachable")

    def abbreviated(self, prefix: str) -> Sequence[ObjectId]:
        done = process.attempt(self._git_dir, "rev-parse", f"--disambiguate={prefix}", env=self._env)
        return [object_id(line) for line in done.stdout.decode().split()[:16]]

    def close(self) -> None:
        with self._lock:
            self._drop()
            self._writer = None

    def _ask(self, question: str, id: ObjectId) -> tuple[str, int] | None:
        try:
            with self._pipe.bounded(ANSWER_S):
                self._pipe.send(f"{question} {object_id(id)}\n".encode())
                words = self._pipe.line().decode("ascii", "replace").split(" ")
        except process.ServiceEnded as error:
            raise _unreadable(id, error) from error
        if len(words) != 3:
            return None
        return words[1], int(words[2])

    def _take(self, id: ObjectId, size: int) -> bytes:
        try:
            with self._pipe.bounded(ANSWER_S):
                return self._pipe.exactly(size)
        except process.ServiceEnded as error:
            raise _unreadable(id, error) from error

    def _missing(self, id: ObjectId) -> WorkbenchError:
        """Not there, or there and unreadable: the pipe says "missing" to both, git itself says more."""
        done = process.attempt(self._git_dir, "cat-file", "-t", id, env=self._env)
        said = done.stderr.decode(errors="replace")
        if "error:" in said or (self._git_dir / "objects" / id[:2] / id[2:]).exists():
            return Corrupt(f"object {id} cannot be read: {' '.join(said.split())}", _RESTORE)
        return NotFound(f"no object {id} in this repository", "fetch or unbundle what it belongs to")

    def _drop(self) -> None:
        """End the pipe: what it still has to say is of no use."""
        self._pipe.close()


def _open_for_writing(objects: Path) -> pygit2.Odb:
    import pygit2
    from pygit2.enums import Option

    # libgit2 ignores core.fsync; without this an acknowledged object may be gone after a power cut.
    pygit2.option(Option.ENABLE_FSYNC_GITDIR, True)
    return pygit2.Odb(str(objects))


def _loose_alone(objects: Path) -> pygit2.Odb:
    import pygit2

    database = pygit2.Odb()
    database.add_backend(pygit2.OdbBackendLoose(str(objects), -1, True), 1)
    return database


def _kind_number(kind: str) -> int:
    return {"commit": 1, "tree": 2, "blob": 3, "tag": 4}[kind]


def _unreadable(id: ObjectId, error: process.ServiceEnded) -> WorkbenchError:
    if not error.stderr:  # it was killed: by us because it hung, or by somebody else
        return WorldError(
            f"reading object {id}: git was ended, or did not answer for {ANSWER_S:g} s",
            "run the command again; look for a stuck disk and for too little memory",
        )
    problem = process.explain(f"reading object {id}", error.stderr)
    if type(problem) is WorldError and "fatal" in error.stderr:
        return Corrupt(problem.what, _RESTORE)
    return problem
