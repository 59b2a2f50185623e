"""``ports.store.Cache``: payload as real files, keyed by content, verified, read-only, capped in size.

::

    <folder>/files/<sha[:2]>/<sha256>    one file for each content; mode 0444, modification time 1 s: a change shows
    <folder>/folders/<tree>/…            hard links to those, one folder for each artifact
    <folder>/leases/<key>                locked (shared) by every process that uses <key>; its time is the last use.
                                         ``lent`` gives it back, ``file`` and ``folder`` keep it to the process's end
    <folder>/pins/<key>.<tree>           what is never dropped, and for which artifact's sake
    <folder>/drafts/                     private files on their way in

The folder may be deleted at any time when no process uses it. Nothing here is synced to disk: a file that was written
before the machine last started is hashed again before its first use, which also finds bit rot. Several processes may
use one folder. Not here: which artifact is wanted, and where the folder is (a setting).
"""

from __future__ import annotations

import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from workbench.domain.errors import Refused, WorldError
from workbench.domain.manifest import FileEntry
from workbench.ports.store import Artifact
from workbench.store.payload.artifacts import Pour
from workbench.store.payload.kept import (
    MTIME_NS,
    boot_time,
    holds_no_more_than,
    is_of_this_boot,
    link,
    remove_tree,
    sha256_of,
    untouched,
)
from workbench.store.payload.names import check_path
from workbench.system import locks

DEFAULT_LIMIT_BYTES = 50 << 30
_DRAFT_MAX_AGE_S = 24 * 3600
_BUILDING_S = 3600.0  # while another process puts a large folder together
_EVICTING_S = 60.0


def default_folder(environ: Mapping[str, str]) -> Path | None:
    """``$WORKBENCH_CACHE_DIR``, or the XDG place; None for a user without a home."""
    if own := environ.get("WORKBENCH_CACHE_DIR"):
        return Path(own)
    base = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".cache")
    return Path(base) / "workbench" / "payload" if os.path.isabs(base) else None


@dataclass(frozen=True)
class _Held:
    """A file or folder of the cache, for the eviction."""

    key: str
    path: Path
    used_ns: int
    size: int


@dataclass
class _Lease:
    """What this process uses: a descriptor that holds the shared lock, and for how many."""

    fd: int
    num_lent: int = 0
    is_kept: bool = False  # ``file`` or ``folder`` gave it out: nobody says when the path is not used any more


class PayloadCache:
    """``pour`` writes payload files, verified (``StoredArtifacts.pour``). Nothing is made on disk before first use."""

    def __init__(self, pour: Pour, folder: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._pour = pour
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._leases: dict[str, _Lease] = {}
        self._lock = threading.RLock()

    # --- the port -----------------------------------------------------------------------------------------------------

    def file(self, artifact: Artifact, path: str) -> Path:
        entry = _entry(artifact, path)
        with self._lock, _readable_errors(self._folder):
            self._prepare()
            self._lease(entry.sha256).is_kept = True
            return self._filled(artifact, entry)

    @contextmanager
    def lent(self, artifact: Artifact, path: str) -> Iterator[Path]:
        entry = _entry(artifact, path)
        with self._lock, _readable_errors(self._folder):
            self._prepare()
            lease = self._lease(entry.sha256)
            lease.num_lent += 1
        try:
            with self._lock, _readable_errors(self._folder):
                file = self._filled(artifact, entry)
            yield file
        finally:
            with self._lock:
                lease.num_lent -= 1
                if not lease.num_lent and not lease.is_kept and self._leases.get(entry.sha256) is lease:
                    os.close(self._leases.pop(entry.sha256).fd)

    def _filled(self, artifact: Artifact, entry: FileEntry) -> Path:
        if not self._usable(entry):
            self._fill(artifact, [entry])
            self._make_room()
        return self._place(entry.sha256)

    def folder(self, artifact: Artifact) -> Path:
        target = self._folder / "folders" / artifact.tree
        with self._lock, _readable_errors(self._folder):
            self._prepare()
            self._lease(artifact.tree).is_kept = True
            if self._folder_usable(target, artifact.manifest.files):
                return target
            with self._building():
                if not self._folder_usable(target, artifact.manifest.files):
                    self._build_folder(artifact, target)
            self._make_room()
            return target

    def pin(self, artifact: Artifact, pinned: bool = True) -> None:
        """Pins the artifact's folder and every file of it, whether they are in the cache yet or not."""
        with self._lock, _readable_errors(self._folder):
            self._prepare()
            for key in (artifact.tree, *(entry.sha256 for entry in artifact.manifest.files)):
                mark = self._folder / "pins" / f"{key}.{artifact.tree}"
                if pinned:
                    mark.touch()
                else:
                    mark.unlink(missing_ok=True)

    def trim(self, limit_bytes: int | None = None) -> int:
        with self._lock, _readable_errors(self._folder):
            self._prepare()
            return self._evict(self._limit_bytes if limit_bytes is None else limit_bytes)

    def verify(self) -> list[str]:
        """Hash every file again; what did not match is dropped and named."""
        bad = []
        with self._lock, _readable_errors(self._folder):
            self._prepare()
            for path in sorted((self._folder / "files").glob("??/*")):
                if sha256_of(path) != path.name:
                    bad.append(path.name)
                    path.unlink(missing_ok=True)
            for folder in sorted((self._folder / "folders").iterdir()) if bad else ():
                self._drop_folder(folder)  # links to a bad file: built again on the next use
        return bad

    def close(self) -> None:
        """Give up the leases: what this process was given may now be dropped."""
        with self._lock:
            for lease in self._leases.values():
                os.close(lease.fd)
            self._leases.clear()

    # --- files --------------------------------------------------------------------------------------------------------

    def _place(self, sha256: str) -> Path:
        return self._folder / "files" / sha256[:2] / sha256

    def _usable(self, entry: FileEntry) -> bool:
        """Whether the file is there and nothing speaks against its content."""
        path = self._place(entry.sha256)
        try:
            status = path.lstat()
        except FileNotFoundError:
            return False
        if not untouched(status, entry.size):
            self._discard(path)
            return False
        if not is_of_this_boot(status, boot_time()) and not self._still_good(path, entry.sha256):
            self._discard(path)
            return False
        return True

    def _still_good(self, path: Path, sha256: str) -> bool:
        """Hash a file from before the machine started; a good one is marked as seen."""
        if sha256_of(path) != sha256:
            return False
        os.utime(path, ns=(time.time_ns(), MTIME_NS), follow_symlinks=False)
        return True

    def _discard(self, path: Path) -> None:
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
        elif path.exists():
            raise Refused(f"{path} is no file", "delete the cache folder: someone else has written to it")

    def _fill(self, artifact: Artifact, entries: list[FileEntry]) -> None:
        """Write what is missing to private files, and link each into place once its sha256 is right."""
        wanted = list({entry.sha256: entry for entry in entries}.values())
        drafts: list[BinaryIO] = []

        def create(_: FileEntry) -> BinaryIO:
            fd, name = tempfile.mkstemp(dir=self._folder / "drafts")
            drafts.append(open(fd, "wb", buffering=0))  # noqa: SIM115 (closed below)
            names.append(name)
            return drafts[-1]

        names: list[str] = []
        try:
            for entry in self._pour(artifact, wanted, create):
                draft, name = drafts.pop(), names.pop()
                with draft:
                    os.fchmod(draft.fileno(), 0o444)
                os.utime(name, ns=(time.time_ns(), MTIME_NS))
                place = self._place(entry.sha256)
                place.parent.mkdir(exist_ok=True)
                with suppress(FileExistsError):  # another process was faster, with the same content
                    os.link(name, place)
                os.unlink(name)
        finally:
            for draft in drafts:
                draft.close()
            for name in names:
                Path(name).unlink(missing_ok=True)

    # --- folders ------------------------------------------------------------------------------------------------------

    def _folder_usable(self, target: Path, files: tuple[FileEntry, ...]) -> bool:
        if target.is_symlink() or not target.is_dir() or not holds_no_more_than(target, files):
            return False
        booted = boot_time()
        for entry in files:
            try:
                status = (target / entry.path).lstat()
            except FileNotFoundError:
                return False
            if not untouched(status, entry.size):
                return False
            if not is_of_this_boot(status, booted) and not self._still_good(target / entry.path, entry.sha256):
                return False
        return True

    def _build_folder(self, artifact: Artifact, target: Path) -> None:
        files = artifact.manifest.files
        missing = [entry for entry in files if not self._usable(entry)]
        if missing:
            self._fill(artifact, missing)
        if target.is_symlink():
            target.unlink()
        elif target.exists():
            self._drop_folder(target)
        draft = Path(tempfile.mkdtemp(dir=self._folder / "drafts"))
        try:
            made = {draft}
            for entry in files:
                path = draft / check_path(entry.path)
                if path.parent not in made:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    made |= {path.parent, *(parent for parent in path.parents if draft in parent.parents)}
                link(self._place(entry.sha256), path)
            for folder in sorted(made - {draft}, reverse=True):
                folder.chmod(0o555)
            draft.rename(target)
            target.chmod(0o555)
        except BaseException:
            remove_tree(draft)
            raise

    def _drop_folder(self, folder: Path) -> None:
        """Take a folder away in one step, then remove it."""
        if folder.is_symlink() or not folder.is_dir():
            folder.unlink(missing_ok=True)
            return
        away = Path(tempfile.mkdtemp(dir=self._folder / "drafts"))
        folder.chmod(0o755)
        folder.rename(away / "gone")
        remove_tree(away)

    # --- room ---------------------------------------------------------------------------------------------------------

    def _make_room(self) -> None:
        if sum(held.size for held in self._files()) > self._limit_bytes:
            self._evict(self._limit_bytes)

    def _evict(self, limit_bytes: int) -> int:
        """Drop folders (they hold links), then files, least recently used first, until the files fit."""
        with self._building():
            self._sweep_drafts()
            files = list(self._files())
            before = total = sum(held.size for held in files)
            pinned = {mark.name.partition(".")[0] for mark in (self._folder / "pins").iterdir()}
            for held in sorted([*self._folders(), *files], key=lambda held: (held.used_ns, held.key)):
                if total <= limit_bytes:
                    break
                if held.key in pinned or not self._drop_unused(held):
                    continue
                total -= held.size
                if len(held.key) == 40:  # its files are free now, if nothing else used them since
                    for file in files:
                        if total > limit_bytes and file.used_ns <= held.used_ns and file.key not in pinned:
                            total -= file.size if self._drop_unused(file) else 0
            return before - total

    def _drop_unused(self, held: _Held) -> bool:
        """Drop one file or folder unless a live process, this one too, has a lease on it."""
        if held.key in self._leases:
            return False
        fd = os.open(self._folder / "leases" / held.key, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if not locks.take(fd):
                return False
            if len(held.key) == 40:
                self._drop_folder(held.path)
                return True
            if held.path.lstat().st_nlink > 1:
                return False  # a folder that stays needs it
            held.path.unlink()
            return True
        except FileNotFoundError:
            return False
        finally:
            os.close(fd)

    def _files(self) -> Iterator[_Held]:
        for path in (self._folder / "files").glob("??/*"):
            with suppress(FileNotFoundError):
                yield _Held(path.name, path, self._used_ns(path.name), path.lstat().st_size)

    def _folders(self) -> Iterator[_Held]:
        for path in (self._folder / "folders").iterdir():
            yield _Held(path.name, path, self._used_ns(path.name), 0)

    def _used_ns(self, key: str) -> int:
        try:
            return (self._folder / "leases" / key).lstat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _sweep_drafts(self) -> None:
        """What killed processes left; a living one is given a day."""
        oldest = time.time() - _DRAFT_MAX_AGE_S
        for draft in (self._folder / "drafts").iterdir():
            with suppress(FileNotFoundError):
                if draft.lstat().st_ctime < oldest:  # the mtime of a file that is nearly in place is long ago
                    remove_tree(draft) if draft.is_dir() else draft.unlink()

    # --- places and locks ---------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        if self._folder.is_symlink():
            raise Refused(f"{self._folder} is a symbolic link", "name the folder it points to as the cache folder")
        for name in ("", "files", "folders", "leases", "pins", "drafts"):
            place = self._folder / name
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = place.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                raise Refused(f"{place} is not a folder of yours", "name another cache folder")

    def _lease(self, key: str) -> _Lease:
        """Hold a shared lock on a key until it is given back, and note the use."""
        path = self._folder / "leases" / key
        lease = self._leases.get(key)
        if lease is None:
            # Waits only for an eviction of this very key.
            lease = self._leases[key] = _Lease(locks.hold(path, shared=True, patience_s=_EVICTING_S, mode=0o600))
        os.utime(lease.fd)
        return lease

    @contextmanager
    def _building(self) -> Iterator[None]:
        """One process at a time puts folders together or drops things."""
        with locks.held(self._folder / "lock", patience_s=_BUILDING_S, mode=0o600):
            yield


def _entry(artifact: Artifact, path: str) -> FileEntry:
    entry = next((entry for entry in artifact.manifest.files if entry.path == path), None)
    if entry is None:
        names = ", ".join(file.path for file in artifact.manifest.files[:10])
        raise Refused(f"{artifact.tag.short} has no file {path!r}", f"it has {names}")
    return entry


@contextmanager
def _readable_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorldError(
            f"the cache {folder} cannot be used: {error.strerror}",
            "free disk space, run `workbench gc`, or set WORKBENCH_CACHE_DIR",
        ) from error
