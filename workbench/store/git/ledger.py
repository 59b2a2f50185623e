"""The ledger: one commit per change on ``refs/workbench/ledger``, and the refs that are projected from it.

A change takes four steps. Killed after any of them, everything is old or everything becomes new:

1. prepare: the refs it will move are locked and their old values checked, so that no push comes between;
2. add the entry's commit (parent: the entry before it; tree: ``entry.json``), and note that it is begun here; all
   objects that the entry names are on disk now, with the folders that name them;
3. move the ledger ref by compare-and-swap: **the commit point**;
4. move the prepared refs.

Each step is on disk before the next one begins, and the last before it is told: a power cut is no worse than a kill.

Whoever comes next finds an entry whose refs still stand at their old values, and moves them: an entry that was begun
here, for one that was fetched is another repository's to finish, and says nothing of the branches of this one. Writers
take turns, and finish what is unfinished before they begin, so at most the newest entry can be.

Not here: how refs are locked and objects kept; both adapters share this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

from workbench.domain.errors import Conflict, Corrupt, NotFound, Refused, UserError, WorkbenchError, WorldError
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import Action, Entry, RefMove
from workbench.domain.refs import LEDGER, MAIN, RUN_CACHE, Branch, Channel
from workbench.ports.store import Objects, Refs
from workbench.store.git.locks import BUSY_FOR_S
from workbench.store.git.refs import Unsynced
from workbench.system import locks

ENTRY = "entry.json"

_TRIES = 40
_LOOK_BACK = 10_000  # commits, for the last one that is an entry
_POINT_PATIENCE_S = 0.5  # short, because locks are held meanwhile
_UNDOABLE = (Branch, Channel)
_NEVER_UNDONE = frozenset({Action.UNDO, Action.HANDLED, Action.INIT, Action.PUSH})  # unless named
_BEGINNINGS = frozenset({Action.INIT, Action.PUSH})


class Prepared(Protocol):
    def commit(self) -> None: ...


class LockingRefs(Refs, Protocol):
    """Refs that can be prepared, then committed or released."""

    def prepared(self, moves: Sequence[RefMove], *, patience_s: float = ...) -> AbstractContextManager[Prepared]: ...

    def await_unlocked(self, ref: str) -> None: ...

    def sync_objects(self) -> None: ...


class Unfinished(WorldError):
    """The newest entry is recorded, and its refs cannot be moved: to read is possible, to write the next one is not."""


class Turn(Protocol):
    """What the ledger needs of its place: whose turn it is, and notes of the last entry that was begun in this
    repository and of the last one known to be projected."""

    def writers(self) -> AbstractContextManager[object]: ...

    def begun(self) -> str:
        """The ledger commit that was last about to be written here, or empty."""
        ...

    def note_begun(self, commit: str) -> None:
        """On disk when it returns, else WorldError."""
        ...

    def projected(self) -> str:
        """A ledger commit whose refs have been moved, or empty when that is not known."""
        ...

    def note_projected(self, commit: str) -> None: ...


class LedgerLog:
    def __init__(self, objects: Objects, refs: LockingRefs, turn: Turn, now_ms: Callable[[], int]) -> None:
        self._objects = objects
        self._refs = refs
        self._turn = turn
        self._now_ms = now_ms

    # --- changing ----------------------------------------------------------------------------------------------------

    def change(
        self,
        action: Action,
        moves: Sequence[RefMove],
        *,
        who: str,
        why: str,
        evidence: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes | None] | None = None,
    ) -> Entry:
        for move in moves:
            if move.ref in (LEDGER, RUN_CACHE):
                raise UserError(f"{move.ref} is not moved by hand", "give `files` to change the run cache")
        with self._turn.writers():
            for _ in _tries():
                self._refs.await_unlocked(str(LEDGER))
                before = self._settled_head()
                planned = [*moves, *self._cache_move(files, who, action)]
                entry = Entry(
                    counter=before.counter + 1 if before else 1,
                    action=action,
                    moves=tuple(planned),
                    who=who,
                    why=why,
                    time_ms=self._now_ms(),
                    evidence=evidence or {},
                )
                made = self._try(before, entry)
                if made is not None:
                    return made
        raise self._contended(f"while entry {entry.counter} was written")

    def _contended(self, when: str) -> Conflict:
        return Conflict(
            f"the ledger moved {_TRIES} times {when}",
            "repeat the command",
            ref=str(LEDGER),
            current=self._refs.get(str(LEDGER)) or "",
        )

    def _try(self, before: Entry | None, entry: Entry) -> Entry | None:
        """One attempt; None when someone moved the ledger or the run cache meanwhile."""
        try:
            with self._refs.prepared(entry.moves) as projection:
                commit = self._write(entry, before)
                self._refs.sync_objects()
                self._turn.note_begun(commit)
                try:
                    point = RefMove(LEDGER, _id(before.commit if before else ""), commit)
                    with self._refs.prepared([point], patience_s=_POINT_PATIENCE_S) as ledger:
                        ledger.commit()
                except (Conflict, locks.Busy):
                    return None
                except Unsynced as error:
                    raise _unfinished(entry, error, "check the disk") from error
                except WorldError:
                    if self._refs.get(str(LEDGER)) != commit:  # its git ended, but had it moved the ledger?
                        raise
                try:
                    projection.commit()
                except WorldError as error:
                    raise _unfinished(entry, error, "mend the cause") from error
        except Conflict as lost:
            if lost.ref != str(RUN_CACHE):
                raise
            return None
        self._turn.note_projected(commit)
        return replace(entry, commit=commit)

    def _write(self, entry: Entry, before: Entry | None) -> ObjectId:
        data = entry.to_bytes()
        try:
            Entry.from_bytes(data)  # what is written can be read
        except Corrupt as error:
            raise Refused(f"the ledger cannot hold this: {error.what}", "give shorter words, or fewer refs") from error
        tree = self._objects.add_tree(None, {ENTRY: data})
        title = " ".join(entry.why.split())[:120]
        return self._objects.add_commit(
            tree,
            parents=[_id(before.commit)] if before else [],
            message=f"{entry.action}: {title}" if title else str(entry.action),
            who=entry.who,
            time_ms=entry.time_ms,
            trailers=[("Counter", str(entry.counter))],
        )

    def _cache_move(self, files: Mapping[str, bytes | None] | None, who: str, action: Action) -> Iterator[RefMove]:
        if not files:
            return
        old = self._refs.get(str(RUN_CACHE))
        tree = self._objects.add_tree(self._objects.commit(old).tree if old else None, files)
        new = self._objects.add_commit(
            tree, parents=[old] if old else [], message=f"run cache: {action}", who=who, time_ms=self._now_ms()
        )
        yield RefMove(RUN_CACHE, old or ZERO_ID, new)

    # --- recovering --------------------------------------------------------------------------------------------------

    def needs_recovery(self) -> bool:
        """Whether the newest entry was written here and is not known to be projected: the price of opening."""
        head = self._refs.get(str(LEDGER))
        return head is not None and head != self._turn.projected() and head == self._turn.begun()

    def recover(self) -> Sequence[Entry]:
        if not self.needs_recovery():
            return []
        try:
            return self._finish()
        except locks.Unwritable as error:
            head = self.head()
            if head is not None and self._missing(head):
                raise _unfinished(head, error, "open it where it can be written to") from error
            return []  # all but the note is there

    def _finish(self) -> list[Entry]:
        with self._turn.writers():
            return self._roll_forward()

    def _settled_head(self) -> Entry | None:
        """The newest entry, after making sure that it is projected. Only in our turn."""
        if self.needs_recovery():
            self._roll_forward()
        return self.head()

    def _roll_forward(self) -> list[Entry]:
        rolled: list[Entry] = []
        for _ in _tries():
            head = self.head() if self.needs_recovery() else None
            if head is None:
                return rolled
            missing = self._missing(head)
            try:
                if missing:
                    self._refs_project(missing)
                    rolled.append(head)
            except Conflict as lost:
                if not lost.ref:  # the name of another ref stands in the way
                    raise _unfinished(head, lost, "remove or rename the ref that is in the way") from lost
                continue  # whoever wrote the entry is still alive and moved them, or a push did
            self._turn.note_projected(head.commit)
        raise WorldError("the ledger does not come to rest", "end the process that writes to it, then repeat")

    def _missing(self, entry: Entry) -> list[RefMove]:
        """The moves of an entry that were not made. A ref at neither value was moved on by someone else since; an
        object that is not here belongs to a clone that did not take everything."""
        return [
            m
            for m in entry.moves
            if m.old != m.new
            and (self._refs.get(str(m.ref)) or ZERO_ID) == m.old
            and (m.new == ZERO_ID or self._objects.exists(m.new))
        ]

    def _refs_project(self, moves: Sequence[RefMove]) -> None:
        with self._refs.prepared(moves) as projection:
            projection.commit()

    # --- reading -----------------------------------------------------------------------------------------------------

    def head(self) -> Entry | None:
        id = self._refs.get(str(LEDGER))
        return self._read(id) if id else None

    def history(self, limit: int = 100) -> Sequence[Entry]:
        return list(islice(self._chain(), limit))

    def readable(self, limit: int = 100) -> Sequence[Entry]:
        found: list[Entry] = []
        with suppress(WorkbenchError):
            found.extend(islice(self._chain(), limit))
        return found

    def last_readable(self) -> ObjectId | None:
        starts = [self._refs.get(str(LEDGER)), self._turn.projected() or None]
        for id in starts:
            with suppress(WorkbenchError):
                for commit in self._objects.history(ObjectId(id), _LOOK_BACK) if id else ():
                    with suppress(WorkbenchError):
                        self._read(commit.id)
                        return commit.id
        return None

    def _chain(self) -> Iterator[Entry]:
        id = self._refs.get(str(LEDGER))
        while id is not None:
            yield self._read(id)
            parents = self._objects.commit(id).parents
            id = parents[0] if parents else None

    def _read(self, id: ObjectId) -> Entry:
        try:
            data = self._objects.read_file(id, ENTRY)
        except UserError as error:  # another object, or a commit without an entry
            raise Corrupt(f"{LEDGER} is no ledger at {id[:12]}: {error.what}", "workbench doctor --quick") from error
        return Entry.from_bytes(data, commit=id)

    # --- undoing -----------------------------------------------------------------------------------------------------

    def undo(self, counter: int | None = None, *, who: str, why: str = "") -> Entry:
        entry = self._to_undo(counter)
        moves = _undoing(entry)
        if not moves:
            raise UserError(
                f"entry {entry.counter} ({entry.action}) moved no channel and no branch, so there is nothing to undo",
                "tags are never deleted or moved; see `workbench log --ledger`",
            )
        if entry.action in _BEGINNINGS and any(m.ref == MAIN and m.new == ZERO_ID for m in moves):
            raise Refused(
                f"entry {entry.counter} ({entry.action}) made main: undoing it would leave a workspace without one",
                "push a commit that reverts what you do not want: git revert",
            )
        try:
            return self.change(
                Action.UNDO,
                moves,
                who=who,
                why=why or f"undo entry {entry.counter} ({entry.action})",
                evidence={"undoes": entry.counter},
            )
        except Conflict as lost:
            if lost.ref == str(LEDGER):
                raise
            raise Conflict(
                f"entry {entry.counter} ({entry.action}) cannot be undone any more: {lost.what}",
                "undo what came after it first (`workbench log --ledger`), or go forward: pin another release, or push "
                "a commit that reverts",
                ref=lost.ref,
                current=lost.current,
            ) from lost

    def _to_undo(self, counter: int | None) -> Entry:
        head = self.head()
        undone: dict[int, int] = {}  # entry -> the entry that took it back, and was not taken back itself
        for entry in self.history(head.counter if head else 0):
            by = undone.get(entry.counter)
            if counter == entry.counter:
                if by is None:
                    return entry
                raise Refused(f"entry {counter} is undone already, by entry {by}", f"to redo it: workbench undo {by}")
            if entry.action is Action.UNDO and by is None:
                undone[entry.evidence.get("undoes", 0)] = entry.counter
            elif counter is None and by is None and entry.action not in _NEVER_UNDONE and _undoing(entry):
                return entry
        which = "no entry can be undone" if counter is None else f"the ledger has no entry {counter}"
        raise NotFound(which, "see `workbench log --ledger`")


def _tries() -> Iterator[float]:
    """The first at once, the others after a longer and longer wait."""
    yield 0.0
    yield from islice(locks.backoff(BUSY_FOR_S), _TRIES)


def _undoing(entry: Entry) -> list[RefMove]:
    return [RefMove(m.ref, m.new, m.old) for m in entry.moves if isinstance(m.ref, _UNDOABLE) and m.old != m.new]


def _id(text: str) -> ObjectId:
    return ObjectId(text) if text else ZERO_ID


def _unfinished(entry: Entry, error: WorkbenchError, mending: str) -> Unfinished:
    return Unfinished(
        f"entry {entry.counter} is recorded, but its refs are not all moved yet: {error.what}",
        f"{mending}; the next workbench command finishes it",
    )
