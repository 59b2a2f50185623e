"""What the rest of the house may ask of a Git repository. Adapters: ``workbench.store`` (git) and its memory peer.

Objects are immutable and content-addressed. Refs move only through ``Ledger.change`` (one commit point, however many)
or ``Refs.swap`` (one that no entry moves: a run, a journal, the contracts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from workbench.domain.contract import ContractRecord
from workbench.domain.ids import Digest, ObjectId, Ulid
from workbench.domain.ledger import Action, Entry, RefMove
from workbench.domain.manifest import Manifest
from workbench.domain.refs import ArtifactTag, Incoming, Kind
from workbench.domain.version import Bump


@dataclass(frozen=True)
class TreeEntry:
    path: str  # relative to the tree that was walked
    mode: int  # 0o100644, 0o100755, 0o40000, 0o120000 or 0o160000
    id: ObjectId


@dataclass(frozen=True)
class CommitInfo:
    id: ObjectId
    tree: ObjectId
    parents: tuple[ObjectId, ...]
    message: str
    author: str  # "Name <email>"
    time_s: int
    trailers: tuple[tuple[str, str], ...]  # the last paragraph's "Key: value" lines, in order


@dataclass(frozen=True)
class Artifact:
    """A published artifact, its manifest and what its commit's trailers say of it."""

    tag: ArtifactTag
    commit: ObjectId
    tree: ObjectId  # its identity
    manifest: Manifest
    inputs: tuple[tuple[str, ObjectId], ...] = ()  # trailers: (short tag, commit)
    source: str = ""  # trailer: commit of the workspace it was made from
    run: str = ""  # trailer: ULID of the run


@dataclass(frozen=True)
class Staged:
    """Objects of an artifact that no ref names yet. Building it twice gives the same tree id."""

    tree: ObjectId
    manifest: Manifest


class Objects(Protocol):
    """Git's objects: read anything, add blobs, trees, commits and tags; nothing is ever changed."""

    def exists(self, id: ObjectId) -> bool: ...

    def kind(self, id: ObjectId) -> str:
        """``commit``, ``tree``, ``blob`` or ``tag``."""
        ...

    def size(self, id: ObjectId) -> int:
        """The number of bytes of an object's content."""
        ...

    def read_blob(self, id: ObjectId) -> bytes:
        """A whole small blob, checked against its id (64 MiB at most, else Refused: see ``stream_blob``)."""
        ...

    def stream_blob(self, id: ObjectId, out: Callable[[bytes], object]) -> int:
        """Hand a blob of any size over in pieces, in bounded memory, not checked; its size in bytes."""
        ...

    def entry(self, tree_ish: ObjectId, path: str) -> TreeEntry | None:
        """What stands at ``path`` in the tree of a commit, tag or tree."""
        ...

    def read_file(self, tree_ish: ObjectId, path: str) -> bytes:
        """A small file by path; NotFound where there is none."""
        ...

    def list(self, tree_ish: ObjectId, path: str = "") -> Sequence[TreeEntry]:
        """The direct entries of a tree, in Git's order."""
        ...

    def walk(self, tree_ish: ObjectId, path: str = "") -> Iterator[TreeEntry]:
        """All blobs below a path, in Git's order, within bounds of depth and number."""
        ...

    def commit(self, id: ObjectId) -> CommitInfo: ...

    def peel(self, id: ObjectId) -> ObjectId:
        """The commit that a tag (or commit) names."""
        ...

    def history(self, start: ObjectId, limit: int = 100) -> Sequence[CommitInfo]: ...

    def add_blob(self, data: bytes) -> ObjectId: ...

    def add_tree(self, base: ObjectId | None, changes: Mapping[str, bytes | ObjectId | None]) -> ObjectId:
        """``base`` with files set (content, or the id of a blob or tree) or removed (None), by path."""
        ...

    def add_commit(
        self,
        tree: ObjectId,
        *,
        parents: Sequence[ObjectId],
        message: str,
        who: str,
        time_ms: int,
        trailers: Sequence[tuple[str, str]] = (),
    ) -> ObjectId: ...

    def add_tag(self, name: str, target: ObjectId, *, message: str, who: str, time_ms: int) -> ObjectId:
        """An annotated tag object named ``name`` (without ``refs/tags/``)."""
        ...


class Refs(Protocol):
    """Names of objects. Values are read in one go and never cached across calls."""

    def get(self, ref: str) -> ObjectId | None: ...

    def all(self, prefix: str = "refs/") -> Mapping[str, ObjectId]:
        """Refs under a prefix, sorted by name, unpeeled."""
        ...

    def swap(self, moves: Sequence[RefMove]) -> None:
        """Compare-and-swap, all or none while it lives; Conflict names the current value. Not crash-atomic for
        more than one ref: for that use ``Ledger.change``."""
        ...


class Ledger(Protocol):
    """The commit point of every change, its history and its undo."""

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
        """Prepare and lock ``moves``, commit the entry, project. Conflict when an old value does not hold.

        ``files`` are changes to the run cache's tree (path -> content), made as part of the same entry.
        """
        ...

    def head(self) -> Entry | None: ...

    def history(self, limit: int = 100) -> Sequence[Entry]:
        """Newest first."""
        ...

    def readable(self, limit: int = 100) -> Sequence[Entry]:
        """The same to look at: down to the first that cannot be read, where ``history`` raises."""
        ...

    def last_readable(self) -> ObjectId | None:
        """The newest commit here that is an entry, where the ref names another object."""
        ...

    def recover(self) -> Sequence[Entry]:
        """Roll unfinished projections forward and remove locks that were left; what was rolled forward."""
        ...

    def undo(self, counter: int | None = None, *, who: str, why: str = "") -> Entry:
        """A new entry that moves channels and branches back to where they stood before entry ``counter`` (None: the
        last one that can be undone). Tags are never deleted or moved."""
        ...


class Artifacts(Protocol):
    """Artifacts: parentless commits of manifest and payload under annotated semver tags."""

    def list(self, kind: Kind | None = None, name: str | None = None) -> Sequence[ArtifactTag]:
        """Sorted by kind, name and version; not those that cannot be read (``look`` says why)."""
        ...

    def look(self, tag: ArtifactTag) -> None:
        """Corrupt, with the reason, where what stands under an artifact's tag is none: readers pass over it."""
        ...

    def latest(self, kind: Kind, name: str) -> ArtifactTag | None: ...

    def get(self, tag: ArtifactTag) -> Artifact:
        """NotFound, with the nearest name, when there is none."""
        ...

    def lying(self, incoming: Incoming) -> Artifact:
        """One that came in and that nobody trusts yet; NotFound when there is none."""
        ...

    def by_tree(self, kind: Kind, tree: ObjectId) -> Artifact | None: ...

    def stage(self, payload: Path, manifest: Manifest) -> Staged:
        """Hash and store all files of a folder; ``manifest.files`` is filled in here. No ref moves."""
        ...

    def publish(
        self,
        staged: Staged,
        *,
        bump: Bump,
        inputs: Sequence[tuple[ArtifactTag, ObjectId]] = (),
        source: str = "",
        run: str = "",
        who: str,
        why: str,
        cache: Mapping[str, Any] | None = None,
        trusted: RefMove | None = None,
    ) -> Artifact:
        """Commit, tag with the next version and enter in the run cache (``cache``: the action's parts), as one ledger
        entry. The same tree as the newest version is not published again: that version is returned. ``trusted``: the
        ref under which it lay untrusted goes in the same entry."""
        ...

    def stream(self, artifact: Artifact, path: str, out: BinaryIO) -> Digest:
        """Write one payload file to ``out`` in bounded memory; its sha256, checked against the manifest (Corrupt)."""
        ...

    def read(self, artifact: Artifact, path: str) -> bytes:
        """A small payload file, checked (64 MiB at most)."""
        ...

    def checkout(self, artifact: Artifact, folder: Path) -> None:
        """Write manifest and payload into a new folder; nothing is left when it fails."""
        ...


class Cache(Protocol):
    """Payloads as real files for programs that need a path: by content, verified, read-only, size-capped."""

    def file(self, artifact: Artifact, path: str) -> Path:
        """A verified read-only file; costs nothing the second time, or when another version shares its content. It is
        not dropped while the process lives: see ``lent`` for one that serves many."""
        ...

    def lent(self, artifact: Artifact, path: str) -> AbstractContextManager[Path]:
        """``file``, for the length of a block. What is opened in it can be read to its end afterwards."""
        ...

    def folder(self, artifact: Artifact) -> Path:
        """A read-only folder that holds the whole payload, hard-linked from the cache's files; it stays like a file."""
        ...

    def pin(self, artifact: Artifact, pinned: bool = True) -> None: ...

    def trim(self, limit_bytes: int | None = None) -> int:
        """Drop what was used least recently and is not pinned, down to the limit; bytes freed."""
        ...

    def close(self) -> None:
        """What this process was given may be dropped from now on; it may go on asking."""
        ...


class RunCache(Protocol):
    """Action key -> what it made, kept in Git."""

    def get(self, key: str) -> Mapping[str, Any] | None:
        """``{"artifact": short tag or "", "tree": …, "commit": …, "parts": {…}}``."""
        ...

    def last(self, stage: str, name: str) -> Mapping[str, Any] | None:
        """The entry that the stage made last under this artifact name: what ``why`` compares with."""
        ...

    def put(self, key: str, entry: Mapping[str, Any], *, who: str, why: str) -> None:
        """For stages that make no artifact."""
        ...


class Contracts(Protocol):
    """What the ``agents/`` of commits offer, recorded once by their tree. Reading one runs nobody's code."""

    def get(self, tree: ObjectId) -> ContractRecord | None:
        """None where it is not recorded; Corrupt for what is no record."""
        ...

    def put(self, record: ContractRecord) -> None:
        """Keep it, in the place of the one before."""
        ...


class Journals(Protocol):
    """Append-only streams: appended records are durable at once, sealed segments are commits."""

    def append(self, stream: str, record: Mapping[str, Any]) -> int:
        """fsynced when it returns; the record's sequence number in the stream."""
        ...

    def seal(self, stream: str) -> ObjectId | None:
        """Commit what is not yet in Git."""
        ...

    def read(self, stream: str, after: int = -1) -> Iterator[tuple[int, Mapping[str, Any]]]: ...


class RunStore(Protocol):
    """Files under ``refs/workbench/runs/<ulid>``: the record, logs and checkpoints of a run."""

    def list(self) -> Sequence[Ulid]:
        """Newest first."""
        ...

    def read(self, run: Ulid, path: str) -> bytes | None: ...

    def write(
        self, run: Ulid, files: Mapping[str, bytes | None], *, folders: Mapping[str, Path | None] | None = None
    ) -> None:
        """Set or remove files, and replace whole folders (stored as payload is, chunked), in one commit."""
        ...

    def checkout_folder(self, run: Ulid, path: str, into: Path) -> bool:
        """Write a stored folder to disk, verified; False where there is none."""
        ...

    def delete(self, runs: Iterable[Ulid]) -> None: ...


@dataclass(frozen=True)
class Finding:
    """One thing that a check found: ``severity`` is ok, warning or error; ``fix`` is the command that mends it."""

    severity: str
    what: str
    fix: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


class Repository(Protocol):
    """One Git repository as the store: everything above, over the same object database."""

    @property
    def path(self) -> Path:
        """The Git directory."""
        ...

    @property
    def objects(self) -> Objects: ...
    @property
    def refs(self) -> Refs: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def artifacts(self) -> Artifacts: ...
    @property
    def cache(self) -> Cache: ...
    @property
    def run_cache(self) -> RunCache: ...
    @property
    def contracts(self) -> Contracts: ...
    @property
    def journals(self) -> Journals: ...
    @property
    def runs(self) -> RunStore: ...

    def resolve(self, name: str) -> ObjectId:
        """The commit a person means: a full ref, a tag (``v1.0.0``, ``release/rust/v1.0.0``), a channel (``active``), a
        branch, ``KIND/NAME`` (its latest), or an object id, whole or abbreviated to 7 digits or more. No branch stands
        in for a version, channel or artifact (``domain.refs.meant_by``). NotFound names the nearest."""
        ...

    def check(self) -> Sequence[Finding]:
        """Settings, bitmaps, locks, leftovers, integrity: what ``doctor`` prints."""
        ...

    def maintain(self, *, if_due: bool = False) -> Sequence[str]:
        """Geometric repack, multi-pack index with bitmaps, prune of expired garbage; what was done. ``if_due``: only
        where enough has come in since the last time."""
        ...
