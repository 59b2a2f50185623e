"""``GitRepository``: one Git directory as the store. The parts meet here; each is made on first use.

Opening costs three small files: a change that was cut off is finished first (``ledger``); nothing else is read.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from workbench.domain.errors import WorldError
from workbench.domain.ids import ObjectId, Ulid, make_ulid
from workbench.domain.ledger import Entry
from workbench.ports.store import Artifacts, Cache, Contracts, Finding, Journals, RunCache, RunStore
from workbench.ports.work import Clock
from workbench.store.git import names
from workbench.store.git.database import GitDatabase
from workbench.store.git.ledger import LedgerLog, Unfinished
from workbench.store.git.objects import ObjectStore
from workbench.store.git.refs import GitRefs
from workbench.store.git.settings import check_format
from workbench.store.git.turn import GitTurn

if TYPE_CHECKING:
    from workbench.store.git.parts import Parts


class GitRepository:
    """``git_dir`` is a bare repository, a ``.git`` folder or a worktree's. With ``object_dirs`` (a push's quarantine,
    to judge what is in it) the repository is read-only and nothing is recovered."""

    def __init__(self, git_dir: Path, *, clock: Clock | None = None, object_dirs: Sequence[Path] = ()) -> None:
        self._git_dir = common_dir(Path(git_dir))
        check_owner(self._git_dir)
        check_format(self._git_dir)
        self._clock = clock or _WallClock()
        self._database = GitDatabase(self._git_dir, object_dirs=object_dirs)
        self._objects = ObjectStore(self._database, _Shallow(self._git_dir / "shallow"))
        self._refs = GitRefs(self._git_dir, head_dir=Path(os.path.realpath(git_dir)))
        self._ledger = GitLedger(self._objects, self._refs, GitTurn(self._git_dir), self._clock.now_ms)
        self._unfinished = None if object_dirs else self._finish()

    def _finish(self) -> Unfinished | None:
        """What was cut off is finished; where that cannot be, the repository is there to be read, and mended."""
        try:
            LedgerLog.recover(self._ledger)
        except Unfinished as error:
            return error
        return None

    @property
    def path(self) -> Path:
        return self._git_dir

    @property
    def unfinished(self) -> Unfinished | None:
        """Why an entry that was cut off could not be finished when this was opened."""
        return self._unfinished

    @property
    def objects(self) -> ObjectStore:
        return self._objects

    @property
    def refs(self) -> GitRefs:
        return self._refs

    @property
    def ledger(self) -> GitLedger:
        return self._ledger

    @cached_property
    def _parts(self) -> Parts:
        from workbench.store.git.parts import Parts

        return Parts(
            self._objects,
            self._refs,
            self._ledger,
            clock=self._clock,
            folder=self._git_dir / "workbench",
            git_dir=self._git_dir,
        )

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
        from workbench.store.git.doctor import examine

        return examine(self._git_dir, self._objects, self._refs, self._ledger, self._unfinished)

    def maintain(self, *, if_due: bool = False) -> Sequence[str]:
        from workbench.store.git.maintenance import is_due, maintain

        return maintain(self._git_dir, self._refs) if not if_due or is_due(self._git_dir) else []

    def close(self) -> None:
        """End the git children. The repository may be used again: they start anew."""
        self._database.close()
        self._refs.close()

    def __enter__(self) -> GitRepository:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class GitLedger(LedgerLog):
    """The ledger over files: recovering also removes the lock files that killed git programs left."""

    _refs: GitRefs

    def recover(self) -> Sequence[Entry]:
        self._refs.sweep()
        return super().recover()


class _Shallow:
    """The commits that git's file ``shallow`` lists (git-clone(1) ``--depth``). It is read
    again when it is another: a fetch may deepen the clone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._ids: frozenset[str] = frozenset()

    def __contains__(self, id: object) -> bool:
        try:
            status = os.stat(self._path)
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                self._ids = frozenset(self._path.read_text("ascii", "replace").split())
                self._seen = seen
        except FileNotFoundError:
            return False
        return id in self._ids


def common_dir(git_dir: Path) -> Path:
    """The directory that holds objects and refs; WorldError where there is none."""
    git_dir = Path(os.path.realpath(git_dir))
    pointer = git_dir / "commondir"
    if pointer.is_file():
        git_dir = Path(os.path.realpath(git_dir / pointer.read_text().strip()))
    if not (git_dir / "objects").is_dir() or not (git_dir / "HEAD").exists():
        raise WorldError(f"not a Git repository: {git_dir}", "make one with `workbench init PATH`")
    return git_dir


def check_owner(git_dir: Path) -> None:
    """WorldError for a repository of another user, unless that one is named in the person's ``safe.directory``: its
    settings may name programs that git would run for us, and what we write into it would not be its owner's.

    git itself looks only where it searches for a repository; our children are told where theirs is.
    """
    owner = os.stat(git_dir).st_uid
    if owner == os.geteuid():
        return
    try:
        asked = subprocess.run(["git", "-C", os.fspath(git_dir), "rev-parse", "--git-dir"], capture_output=True)
    except FileNotFoundError:
        return  # without git nothing is run, and the first use of it says so
    if asked.returncode:
        raise WorldError(
            f"{git_dir} belongs to another user (uid {owner})",
            "run the command as that user (over ssh or with sudo -u), or work in a clone of your own",
        )


class _WallClock:
    """For callers that give no clock. Adapters do not know each other, so this is not ``workbench.clock``."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def ulid(self) -> Ulid:
        return make_ulid(self.now_ms(), os.urandom(10))
