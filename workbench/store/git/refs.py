"""Refs of a Git repository: read from the files, written only through a persistent ``git update-ref --stdin``.

Why not a library: libgit2 and dulwich run no hooks, and libgit2's deletion racing ``pack-refs`` loses fresh refs.
Reading one ref is reading its file, as every Git does: a light command cannot afford to import a library for it.
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from workbench.domain.errors import Conflict, UserError, WorldError
from workbench.domain.ids import ZERO_ID, ObjectId, object_id
from workbench.domain.ledger import RefMove
from workbench.store.git import locks, process
from workbench.system import durable
from workbench.system.locks import Busy, backoff

ANSWER_S = 60.0  # for git to answer; it does so in milliseconds, so this is a child that hangs
PATIENCE_S = 10.0  # for locks that others hold

_ID = re.compile(r"[0-9a-f]{40}\Z")
_LOCKED = re.compile(r"(?:Unable to create '|unable to create file )([^']+(?:\.lock|packed-refs\.new))'?: File exists")
_MAX_SYMBOLIC = 5
_NO_WAIT = ("-c", "core.filesRefLockTimeout=0", "-c", "core.packedRefsTimeout=0")
_NO_GUESSING = ("-c", "core.warnAmbiguousRefs=false")  # an id is not looked up as a name, in twelve places
# git-check-ref-format(1), with less allowed: every ref lies below refs/, ASCII without blanks and quotes.
_REF = re.compile(r"(?!.*(?:\.\.|//|/\.|\.lock(?:/|\Z)|@\{|\.\Z|/\Z|\./))refs/[!#$%&'()+,\-./0-9;<=>@A-Z_a-z{|}]+\Z")
# What we read is git's own rule: a clone has the branches of its owner. A byte that is no UTF-8 is a surrogate here.
_READABLE = re.compile(
    r"(?!.*(?:\.\.|//|/\.|\.lock(?:/|\Z)|@\{|\.\Z|/\Z))"
    r"refs/[^\x00-\x20\x7f~^:?*\[\\\ud800-\udc7f\udd00-\udfff]+\Z"
)


def check_ref(ref: str) -> str:
    """To be written."""
    return _checked(ref, _REF)


def check_readable_ref(ref: str) -> str:
    return _checked(ref, _READABLE)


def _checked(ref: str, rule: re.Pattern[str]) -> str:
    if not rule.match(ref) or len(ref) > 400:
        raise UserError(f"not a full ref name: {ref!r}", "a ref starts with refs/; see git-check-ref-format(1)")
    return ref


def check_moves(moves: Sequence[RefMove]) -> list[RefMove]:
    """Sorted by name, so that two writers lock in the same order; no ref twice."""
    ordered = sorted(moves, key=lambda move: check_ref(str(move.ref)))
    for first, second in pairwise(ordered):
        if first.ref == second.ref:
            raise UserError(f"{first.ref} is moved twice in one change", "move each ref once")
    return ordered


def conflict(move: RefMove, current: ObjectId | None) -> Conflict:
    stands = f"at {current}" if current else "absent"
    expected = "absent" if move.old == ZERO_ID else f"at {move.old}"
    return Conflict(
        f"{move.ref} is {stands}, not {expected}",
        "someone else changed it: read it again and repeat",
        ref=str(move.ref),
        current=current or "",
    )


class Unsynced(WorldError):
    """The refs have moved, and whether they are still there after a power cut is not known."""


class GitRefs:
    """``head_dir`` is where HEAD is read: a linked work tree has one of its own, beside the refs of all."""

    def __init__(self, git_dir: Path, head_dir: Path | None = None) -> None:
        self._git_dir = git_dir
        self._head_dir = head_dir or git_dir
        self._lock = threading.RLock()
        self._idle: list[Updater] = []
        self._folders = durable.Folders()

    # --- reading -----------------------------------------------------------------------------------------------------

    def get(self, ref: str) -> ObjectId | None:
        for _ in range(_MAX_SYMBOLIC):
            text = self._loose(ref)
            if text is None:
                return self._packed(ref)
            if not text.startswith("ref: "):
                if not _ID.match(text):
                    raise WorldError(f"the file of {ref} is broken: {text[:60]!r}", "run `workbench doctor`")
                return ObjectId(text)
            ref = text[5:].strip(" \t")
        raise WorldError(f"{ref} is a symbolic ref in a circle", "run `workbench doctor`")

    def all(self, prefix: str = "refs/") -> Mapping[str, ObjectId]:
        # A pattern must be a whole name or end at a slash for git; the rest of the prefix is compared here.
        pattern = prefix[: prefix.rfind("/") + 1] or "refs/"
        listed = process.run(self._git_dir, "for-each-ref", "--format=%(objectname) %(refname)", pattern)
        lines = listed.decode("utf-8", "replace").split("\n")[:-1]  # a name may hold what Unicode calls a line end
        pairs = (line.split(" ", 1) for line in lines)
        return {ref: ObjectId(id) for id, ref in pairs if ref.startswith(prefix)}

    def _loose(self, ref: str) -> str | None:
        folder = self._head_dir if ref == "HEAD" else self._git_dir
        if ref != "HEAD":
            check_readable_ref(ref)
        try:
            with open(f"{folder}/{ref}", "rb", buffering=0) as file:
                return file.readall().decode("utf-8", "surrogateescape").strip(" \t\r\n")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return None

    def _packed(self, ref: str) -> ObjectId | None:
        """Read after the loose file was missing: ``pack-refs`` writes here before it removes that one."""
        try:
            packed = (self._git_dir / "packed-refs").read_bytes()
        except FileNotFoundError:
            return None
        ending = b" %s\n" % ref.encode("utf-8", "surrogateescape")
        position = packed.find(ending)
        while position >= 0:
            line = packed[packed.rfind(b"\n", 0, position) + 1 : position]
            if len(line) == 40:
                return object_id(line.decode("ascii", "replace"))
            position = packed.find(ending, position + 1)
        return None

    # --- writing -----------------------------------------------------------------------------------------------------

    def swap(self, moves: Sequence[RefMove]) -> None:
        if moves:
            self.sync_objects()
            with self.prepared(moves) as transaction:
                transaction.commit()

    def sync_objects(self) -> None:
        """The names of all objects are on disk when it returns, before a ref names one: git does not sync the folder
        that it moves a pack to from a push's quarantine, nor libgit2 the one that it makes a folder in."""
        objects = self._git_dir / "objects"
        try:
            self._folders.sync([objects / "pack", objects])
        except OSError as error:
            raise process.explain("syncing the objects", error.strerror or "") from error

    @contextmanager
    def prepared(self, moves: Sequence[RefMove], *, patience_s: float = PATIENCE_S) -> Iterator[Updater]:
        """Locks taken and old values checked; ``commit()`` moves the refs, leaving without it releases them.

        Conflict when an old value does not hold. Waits a bounded while for refs that others have locked, then Busy.
        """
        ordered = check_moves(moves)
        updater = self._prepare(ordered, patience_s)
        try:
            yield updater
        finally:
            updater.abort()
            if not updater.has_ended:
                with self._lock:
                    self._idle.append(updater)

    def _prepare(self, moves: Sequence[RefMove], patience_s: float) -> Updater:
        waits = backoff(patience_s)
        folders = list(dict.fromkeys(self._holding(moves)))
        while True:
            with self._lock:
                waited = bool(self._idle)
                updater = self._idle.pop() if waited else Updater(self._git_dir)
            try:
                updater.prepare(moves, folders)
                return updater
            except process.ServiceEnded as error:
                if waited and not error.stderr:  # it was killed, perhaps long ago: nothing was moved
                    continue
                self._raise_if_settled(moves, error.stderr)
                locked = Path(match[1]) if (match := _LOCKED.search(error.stderr)) else None
            except BaseException:
                updater.close()
                raise
            self._wait_for(locked, waits)

    def _holding(self, moves: Sequence[RefMove]) -> Iterator[Path]:
        """The folders that hold the names of these refs, for git syncs files alone: up to the first that is there
        already, and of a ref that is deleted all, for git removes the empty ones. First that of ``packed-refs``, where
        its older value must not come back when its file is gone."""
        deleted = [move for move in moves if move.new == ZERO_ID]
        if deleted:
            yield self._git_dir
        for move in deleted:
            yield from (self._git_dir / folder for folder in Path(str(move.ref)).parents if folder.name)
        for move in moves:
            folder = (self._git_dir / str(move.ref)).parent
            yield folder
            while not folder.is_dir():
                folder = folder.parent
                yield folder

    def _wait_for(self, locked: Path | None, waits: Iterator[float]) -> None:
        """Until the lock has gone, or was removed because nobody holds it; nothing of ours is held meanwhile."""
        sighting = locks.Sighting.of(locked) if locked else None
        while next(waits, None) is not None:
            if sighting is None or not sighting.unchanged() or locks.remove_left(self._git_dir, [sighting.path]):
                return
        raise self._busy(sighting)

    def await_unlocked(self, ref: str) -> None:
        """Wait until nobody holds the lock of ``ref``; one that was left is removed."""
        locked = self._git_dir / f"{check_ref(ref)}.lock"
        if locked.exists():
            self._wait_for(locked, backoff(PATIENCE_S))

    def sweep(self) -> list[Path]:
        """Remove the locks that nobody holds any more (see ``locks``)."""
        return locks.remove_left(self._git_dir, locks.lock_files(self._git_dir))

    def _raise_if_settled(self, moves: Sequence[RefMove], stderr: str) -> None:
        """Say what is wrong, unless it is a lock that will go away."""
        for move in moves:
            current = self.get(str(move.ref))
            if (current or ZERO_ID) != move.old:
                raise conflict(move, current)
        if _LOCKED.search(stderr):
            return
        if " exists; cannot create" in stderr or "cannot process" in stderr:
            raise Conflict(stderr.strip().removeprefix("fatal: "), "a ref and a folder of refs cannot share a name")
        if "nonexistent object" in stderr or "non-commit object" in stderr:
            raise UserError(stderr.strip().removeprefix("fatal: "), "add the object before naming it")
        if "expected" in stderr or "already exists" in stderr or "unable to resolve" in stderr:
            return  # it was another value for a moment, and is back
        raise process.explain("moving refs", stderr)

    def _busy(self, lock: locks.Sighting | None) -> Busy:
        if lock is None:
            return Busy("a ref stays locked by another git", "wait for that command to end, then repeat")
        name = lock.path.relative_to(self._git_dir)
        return Busy(
            f"{name} is {lock.age_s:.0f} s old: another git holds it, or was killed and left it",
            f"wait for that git, then repeat; if no git is at work there: {locks.removal(lock.path)}",
        )

    def close(self) -> None:
        with self._lock:
            for updater in self._idle:
                updater.close()
            self._idle.clear()


class Updater:
    """One ``git update-ref --stdin``: one transaction at a time, any number one after the other."""

    def __init__(self, git_dir: Path) -> None:
        self.has_ended = False
        self._note = locks.LockNote(git_dir)
        # git does not wait for locks here: we do, holding nothing, so that one that was left can be removed.
        arguments = (*_NO_WAIT, *_NO_GUESSING, "update-ref", "--stdin", "--no-deref")
        self._service = process.Service(git_dir, *arguments, pass_fds=[self._note.fd])
        self._prepared: Sequence[Path] | None = None  # the folders whose names it changes
        self._started = False  # the next transaction is begun with the end of one, when nobody waits for it

    def prepare(self, moves: Sequence[RefMove], folders: Sequence[Path]) -> None:
        lines = [] if self._started else ["start"]
        self._started = False
        for move in moves:
            if move.old == move.new:
                lines.append(f"verify {move.ref} {object_id(move.old)}")
            elif move.new == ZERO_ID:
                lines.append(f"delete {move.ref} {object_id(move.old)}")
            else:
                lines.append(f"update {move.ref} {object_id(move.new)} {object_id(move.old)}")
        lines.append("prepare")
        if moves:
            packed = ["packed-refs"] if any(move.new == ZERO_ID for move in moves) else []
            self._note.name([*(str(move.ref) for move in moves), "HEAD", *packed])
        self._ask("\n".join(lines), "start", "prepare")
        self._prepared = folders

    def commit(self) -> None:
        """All moves are on disk when it returns; an error says that some may not be."""
        folders, self._prepared = self._prepared, None
        assert folders is not None
        try:
            self._end("commit")
        except process.ServiceEnded as error:
            raise process.explain("moving refs", error.stderr) from error
        try:
            durable.sync_folders(folders)
        except OSError as error:
            said = f"the refs have moved, but their folders cannot be synced: {error.strerror}"
            raise Unsynced(said, "check the disk") from error

    def abort(self) -> None:
        if self._prepared is not None:
            self._prepared = None
            with suppress(process.ServiceEnded):  # it has ended, and with it the transaction
                self._end("abort")

    def _end(self, verb: str) -> None:
        self._ask(f"{verb}\nstart", verb)
        self._note.clear()
        self._started = True

    def close(self) -> None:
        self.has_ended = True
        self._service.close()
        self._note.close()

    def _ask(self, text: str, *verbs: str) -> None:
        """Each verb is answered by ``<verb>: ok``; an answer whose write failed shows in the one after it."""
        try:
            with self._service.bounded(ANSWER_S):
                self._service.send(text.encode() + b"\n")
                for verb in verbs:
                    if self._service.line() != f"{verb}: ok".encode():
                        raise self._service.gone_wrong()
        except process.ServiceEnded as error:
            if not error.killed:
                self._note.clear()  # it has removed its locks itself
            self.close()
            raise
