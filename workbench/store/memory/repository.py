"""``MemoryRepository``: dictionaries behind the ports, with the ids that Git would give. For tests.

Objects by meaning, the ledger, names and payload are the same code as over Git; what differs is where raw objects and
refs are kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from workbench.domain.errors import NotFound
from workbench.domain.ids import ZERO_ID, ObjectId, Ulid, make_ulid, object_id
from workbench.domain.ledger import RefMove
from workbench.ports.store import Artifacts, Cache, Contracts, Finding, Journals, RunCache, RunStore
from workbench.ports.work import Clock
from workbench.store.git import names
from workbench.store.git.encoding import object_id_of
from workbench.store.git.ledger import LedgerLog
from workbench.store.git.objects import ObjectStore
from workbench.store.git.refs import check_moves, check_readable_ref, conflict

if TYPE_CHECKING:
    from workbench.store.git.parts import Parts


class MemoryDatabase:
    def __init__(self) -> None:
        self._objects: dict[ObjectId, tuple[str, bytes]] = {}

    def header(self, id: ObjectId) -> tuple[str, int] | None:
        found = self._objects.get(object_id(id))
        return (found[0], len(found[1])) if found else None

    def read(self, id: ObjectId) -> tuple[str, bytes]:
        if object_id(id) not in self._objects:
            raise NotFound(f"no object {id} in this repository", "add it first")
        return self._objects[id]

    def stream(self, id: ObjectId, out: Callable[[bytes], object]) -> int:
        data = self.read(id)[1]
        for start in range(0, len(data), 1 << 20):
            out(data[start : start + (1 << 20)])
        return len(data)

    def write(self, kind: str, data: bytes) -> ObjectId:
        id = object_id_of(kind, data)
        self._objects[id] = (kind, bytes(data))
        return id

    def abbreviated(self, prefix: str) -> Sequence[ObjectId]:
        return sorted(id for id in self._objects if id.startswith(prefix))[:16]


class MemoryRefs:
    """Refs in a dictionary; a transaction holds the one lock."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._refs: dict[str, ObjectId] = {}
        self._lock = threading.RLock()

    def get(self, ref: str) -> ObjectId | None:
        return self._refs.get(ref if ref == "HEAD" else check_readable_ref(ref))

    def all(self, prefix: str = "refs/") -> Mapping[str, ObjectId]:
        with self._lock:
            return {ref: id for ref, id in sorted(self._refs.items()) if ref.startswith(prefix)}

    def swap(self, moves: Sequence[RefMove]) -> None:
        with self.prepared(moves) as transaction:
            transaction.commit()

    @contextmanager
    def prepared(self, moves: Sequence[RefMove], *, patience_s: float = 0.0) -> Iterator[_Transaction]:
        ordered = check_moves(moves)
        with self._lock:
            for move in ordered:
                current = self._refs.get(str(move.ref))
                if (current or ZERO_ID) != move.old:
                    raise conflict(move, current)
                if move.new not in (ZERO_ID, move.old):
                    self._objects.kind(move.new)  # a ref never names what is not there
            yield _Transaction(self._refs, ordered)

    def await_unlocked(self, ref: str) -> None:
        """Nothing is ever left locked here."""

    def sync_objects(self) -> None:
        """There is no disk."""


class _Transaction:
    def __init__(self, refs: dict[str, ObjectId], moves: Sequence[RefMove]) -> None:
        self._refs = refs
        self._moves = moves

    def commit(self) -> None:
        for move in self._moves:
            if move.new == ZERO_ID:
                self._refs.pop(str(move.ref), None)
            else:
                self._refs[str(move.ref)] = move.new


class MemoryTurn:
    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._begun = ""
        self._projected = ""

    def writers(self) -> AbstractContextManager[None]:
        return self._held()

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._lock:
            yield

    def begun(self) -> str:
        return self._begun

    def note_begun(self, commit: str) -> None:
        self._begun = commit

    def projected(self) -> str:
        return self._projected

    def note_projected(self, commit: str) -> None:
        self._projected = commit


class MemoryRepository:
    """``path`` is where journals and the materialise cache put their files: a temporary folder unless given."""

    def __init__(self, path: Path | None = None, *, clock: Clock | None = None) -> None:
        self._folder = TemporaryDirectory(prefix="workbench-memory-") if path is None else None
        self._path = path or Path(self._folder.name if self._folder else "")
        self._clock = clock or CountingClock()
        self._database = MemoryDatabase()
        self._objects = ObjectStore(self._database)
        self._refs = MemoryRefs(self._objects)
        self._ledger = LedgerLog(self._objects, self._refs, MemoryTurn(), self._clock.now_ms)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def objects(self) -> ObjectStore:
        return self._objects

    @property
    def refs(self) -> MemoryRefs:
        return self._refs

    @property
    def ledger(self) -> LedgerLog:
        return self._ledger

    @cached_property
    def _parts(self) -> Parts:
        from workbench.store.git.parts import Parts

        return Parts(self._objects, self._refs, self._ledger, clock=self._clock, folder=self._path, git_dir=None)

    @property
    def artifacts(self) -> Artifacts:
        return self._parts.artifacts

    @property
    def cache(self) -> Cache:
        return self._parts.cache

    @property
    def run_cache(self) -> RunCache:
        return self._parts.run_cache

    @property
    def contracts(self) -> Contracts:
        return self._parts.contracts

    @property
    def journals(self) -> Journals:
        return self._parts.journals

    @property
    def runs(self) -> RunStore:
        return self._parts.runs

    def resolve(self, name: str) -> ObjectId:
        return names.resolve(name, self._objects, self._refs, self._database)

    def check(self) -> Sequence[Finding]:
        return [Finding("ok", "kept in memory")]

    def maintain(self, *, if_due: bool = False) -> Sequence[str]:
        return []

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> MemoryRepository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class CountingClock:
    """A clock that goes on by a second at each look, so that tests are the same every time."""

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = start_ms

    def now_ms(self) -> int:
        self._now_ms += 1000
        return self._now_ms

    def ulid(self) -> Ulid:
        return make_ulid(self.now_ms(), self._now_ms.to_bytes(10, "big"))
