"""``ports.store.Artifacts``: parentless commits of ``manifest.json`` and ``payload/`` under annotated semver tags.

All goes through the ports and ``Blobs``, so the same code serves Git and memory.
"""

from __future__ import annotations

import difflib
import errno
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from workbench.domain import refs as grammar
from workbench.domain.action import ActionParts
from workbench.domain.errors import Conflict, Corrupt, NotFound, Refused, UserError, WorkbenchError, WorldError
from workbench.domain.ids import ZERO_ID, Digest, ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.domain.manifest import MANIFEST, PAYLOAD, FileEntry, Manifest
from workbench.domain.refs import ArtifactTag, Incoming, Kind
from workbench.domain.version import FIRST, Bump
from workbench.ports.store import Artifact, CommitInfo, Ledger, Objects, Refs, Staged
from workbench.store.payload.blobs import Blobs
from workbench.store.payload.files import Located, locate, pour, scan_to_publish, store, write_into
from workbench.store.payload.run_cache import entry_files, find

TAGS = "refs/tags/"
SMALL_MAX = 64 << 20  # bytes that ``read`` gives at once
_ATTEMPTS = 12
_BACKOFF_S = 0.02


class StoredArtifacts:
    """Artifacts over any repository. ``now_ms`` gives the time that commits and tags carry; no tree holds it."""

    def __init__(
        self, objects: Objects, refs: Refs, ledger: Ledger, blobs: Blobs, *, now_ms: Callable[[], int]
    ) -> None:
        self._objects = objects
        self._refs = refs
        self._ledger = ledger
        self._blobs = blobs
        self._now_ms = now_ms
        self._sound: dict[str, ObjectId] = {}  # tags that were looked at, and what they named

    # --- which are there ----------------------------------------------------------------------------------------------

    def list(self, kind: Kind | None = None, name: str | None = None) -> Sequence[ArtifactTag]:
        return [tag for tag in sorted(self._tags(kind, name)) if self._is_sound(tag)]

    def latest(self, kind: Kind, name: str) -> ArtifactTag | None:
        by_version = sorted(self._tags(kind, name), key=lambda tag: tag.version, reverse=True)
        return next(filter(self._is_sound, by_version), None)

    def look(self, tag: ArtifactTag) -> None:
        id = self._refs.get(str(tag))
        if id is None or self._sound.get(str(tag)) == id:
            return
        if self._objects.kind(id) != "tag":
            raise Corrupt(f"{tag.short} is not an annotated tag", "publish what it names: `workbench import`")
        self._load(tag, self._objects.commit(self._objects.peel(id)))
        self._sound[str(tag)] = id

    def _is_sound(self, tag: ArtifactTag) -> bool:
        try:
            self.look(tag)
        except WorkbenchError:
            return False
        return True

    def _tags(self, kind: Kind | None, name: str | None) -> Iterator[ArtifactTag]:
        """By name alone: what stands there may be anything."""
        prefix = TAGS if kind is None else f"{TAGS}{kind}/" if name is None else f"{TAGS}{kind}/{name}/"
        for ref in self._refs.all(prefix):
            try:
                tag = grammar.parse(ref)
            except UserError:
                continue  # a person's own tag
            if isinstance(tag, ArtifactTag) and name in (None, tag.name):
                yield tag

    def get(self, tag: ArtifactTag) -> Artifact:
        id = self._refs.get(str(tag))
        if id is None:
            raise NotFound(f"no artifact {tag.short}", self._nearest(tag))
        return self._load(tag, self._objects.commit(self._objects.peel(id)))

    def lying(self, incoming: Incoming) -> Artifact:
        id = self._refs.get(str(incoming))
        if id is None or not isinstance(incoming.tag, ArtifactTag):
            raise NotFound(f"no artifact came in as {incoming.short}", "see `workbench incoming` for what lies there")
        return self._load(incoming.tag, self._objects.commit(self._objects.peel(id)))

    def _nearest(self, tag: ArtifactTag) -> str:
        near = difflib.get_close_matches(tag.short, [other.short for other in self.list()], n=1, cutoff=0.3)
        return f"the nearest is {near[0]}" if near else "there are no artifacts yet: start with `workbench run`"

    def _load(self, tag: ArtifactTag, commit: CommitInfo) -> Artifact:
        try:
            manifest = Manifest.from_bytes(self._objects.read_file(commit.tree, MANIFEST))
        except NotFound as error:
            raise Corrupt(f"{tag.short} has no {MANIFEST}", "it was not made by a workbench: delete the tag") from error
        except UserError as error:  # a name or digest that breaks the grammar
            raise Corrupt(f"{tag.short}: {error.what}", error.hint) from error
        if (manifest.kind, manifest.name) != (tag.kind, tag.name):
            raise Corrupt(f"{tag.short} holds the manifest of {manifest.kind}/{manifest.name}", "delete the tag")
        single = {key: value for key, value in commit.trailers if key != "Input"}
        return Artifact(
            tag,
            commit.id,
            commit.tree,
            manifest,
            inputs=tuple(_input(value) for key, value in commit.trailers if key == "Input"),
            source=single.get("Source", ""),
            run=single.get("Run", ""),
        )

    def by_tree(self, kind: Kind, tree: ObjectId) -> Artifact | None:
        tags = sorted(self._tags(kind, None), key=lambda tag: tag.version, reverse=True)
        ids = self._refs.all(f"{TAGS}{kind}/")
        for tag in tags:
            with suppress(WorkbenchError, KeyError):  # gone, or none of ours
                commit = self._objects.commit(self._objects.peel(ids[str(tag)]))
                if commit.tree == tree and self._is_sound(tag):
                    return self._load(tag, commit)
        return None

    # --- in -----------------------------------------------------------------------------------------------------------

    def stage(self, payload: Path, manifest: Manifest) -> Staged:
        found = scan_to_publish(payload)
        with self._blobs.writer() as writer:
            blobs, files = store(payload, found, writer)
            manifest = replace(manifest, files=files)
            paths = {f"{PAYLOAD}/{path}": id for path, id in blobs.items()}
            data = manifest.to_bytes()
            try:
                Manifest.from_bytes(data)  # what is written can be read
            except Corrupt as error:
                raise Refused(f"this cannot be published: {error.what}", "pack many small files into few") from error
            tree = writer.tree({**paths, MANIFEST: writer.blob(data)})
        return Staged(tree, manifest)

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
        if not self._objects.exists(staged.tree):
            raise Corrupt(f"the staged tree {staged.tree} is not in the repository", "stage the payload again")
        trailers = [("Input", f"{tag.short} {commit}") for tag, commit in inputs]
        trailers += [(key, value) for key, value in (("Source", source), ("Run", run)) if value]
        kind, name = staged.manifest.kind, staged.manifest.name
        commit: ObjectId | None = None
        for attempt in range(_ATTEMPTS):
            newest = self.latest(kind, name)
            if newest is not None:
                standing = self.get(newest)
                if standing.tree == staged.tree and trusted is None:
                    self._enter(standing, who=who, why=why, cache=cache)
                    return standing
            highest = max((tag.version for tag in self._tags(kind, name)), default=None)
            tag = ArtifactTag(kind, name, highest.bump(bump) if highest else FIRST)
            if commit is None:  # built once, however often the race is lost
                commit = self._objects.add_commit(
                    staged.tree, parents=(), message=why, who=who, time_ms=self._now_ms(), trailers=trailers
                )
            artifact = Artifact(tag, commit, staged.tree, staged.manifest, _pairs(inputs), source, run)
            annotated = self._objects.add_tag(tag.short, commit, message=why, who=who, time_ms=self._now_ms())
            try:
                imported = Action.TRUST if trusted else Action.IMPORT
                self._ledger.change(
                    imported if staged.manifest.stage == "import" else Action.PUBLISH,
                    [RefMove(tag, ZERO_ID, annotated), *([trusted] if trusted else [])],
                    who=who,
                    why=why,
                    evidence={"artifact": tag.short, "tree": staged.tree},
                    files=_cache_files(artifact, cache),
                )
            except Conflict:
                if attempt + 1 == _ATTEMPTS:
                    raise
                time.sleep(random.uniform(0, _BACKOFF_S * 2 ** min(attempt, 5)))
                continue
            return artifact
        raise AssertionError("unreachable")

    def _enter(self, artifact: Artifact, *, who: str, why: str, cache: Mapping[str, Any] | None) -> None:
        """Another action has made the same tree: remember that in the run cache."""
        files = _cache_files(artifact, cache)
        if files and cache is not None:
            key = ActionParts.from_json(cache).key
            known = find(self._objects, self._refs, key)
            if known is None or known.get("tree") != artifact.tree:
                self._ledger.change(Action.PUBLISH, [], who=who, why=why, evidence={"key": key}, files=files)

    # --- out ----------------------------------------------------------------------------------------------------------

    def located(self, artifact: Artifact, path: str | None = None) -> Sequence[Located]:
        """The blobs of one payload file, or of all."""
        files = artifact.manifest.files if path is None else (self._file(artifact, path),)
        return locate(self._objects, artifact.tree, PAYLOAD, files)

    def pour(
        self, artifact: Artifact, files: Sequence[FileEntry], open_file: Callable[[FileEntry], BinaryIO]
    ) -> Iterator[FileEntry]:
        """Write some payload files, verified (see ``files.pour``)."""
        return pour(self._blobs, locate(self._objects, artifact.tree, PAYLOAD, files), open_file)

    def stream(self, artifact: Artifact, path: str, out: BinaryIO) -> Digest:
        entry = self._file(artifact, path)
        for _ in self.pour(artifact, [entry], lambda _: out):
            pass
        return entry.sha256

    def read(self, artifact: Artifact, path: str) -> bytes:
        entry = self._file(artifact, path)
        if entry.size > SMALL_MAX:
            raise Refused(f"{path} holds {entry.size} bytes", "read it with `stream`, or through the cache")
        parts = _Parts()
        self.stream(artifact, path, parts)  # type: ignore[arg-type]
        return b"".join(parts.parts)

    def checkout(self, artifact: Artifact, folder: Path) -> None:
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise Refused(f"{folder} is there already", "name a new or an empty folder")
        if folder.exists() and (what := _irreplaceable(folder)):
            raise Refused(f"{folder} is {what}", f"name a folder that is not there yet, for example {folder / 'out'}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        except OSError as error:
            blocked = isinstance(error, FileExistsError | NotADirectoryError)
            problem = "a file is in the way" if blocked else error.strerror
            raise WorldError(f"cannot make {folder}: {problem}", "choose a place that you may write to") from error
        try:
            (draft / MANIFEST).write_bytes(artifact.manifest.to_bytes())
            (draft / PAYLOAD).mkdir()
            write_into(draft / PAYLOAD, lambda create: self.pour(artifact, artifact.manifest.files, create))
            draft.chmod(0o755)
            draft.rename(folder)
        except OSError as error:
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise WorldError(
                f"cannot write {folder}: {error.strerror}",
                "free disk space, or choose another disk" if is_full else "choose a place that you may write to",
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    @staticmethod
    def _file(artifact: Artifact, path: str) -> FileEntry:
        for entry in artifact.manifest.files:
            if entry.path == path:
                return entry
        near = difflib.get_close_matches(path, [entry.path for entry in artifact.manifest.files], n=3)
        raise NotFound(f"{artifact.tag.short} has no file {path!r}", f"it has {', '.join(near)}" if near else "")


Pour = Callable[[Artifact, Sequence[FileEntry], Callable[[FileEntry], BinaryIO]], Iterator[FileEntry]]


def _irreplaceable(folder: Path) -> str:
    """What an empty folder is that the whole cannot be put in the place of at once."""
    if folder.samefile(os.curdir):
        return "the folder that you are in"
    return "a mount point" if folder.resolve().is_mount() else ""


class _Parts:
    """The little of a binary file that ``pour`` uses, kept in memory."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.parts.append(data)
        return len(data)


def _pairs(inputs: Sequence[tuple[ArtifactTag, ObjectId]]) -> tuple[tuple[str, ObjectId], ...]:
    return tuple((tag.short, commit) for tag, commit in inputs)


def _input(trailer: str) -> tuple[str, ObjectId]:
    short, _, commit = trailer.partition(" ")
    return short, ObjectId(commit)


def _cache_files(artifact: Artifact, cache: Mapping[str, Any] | None) -> Mapping[str, bytes | None] | None:
    if cache is None:
        return None
    parts = ActionParts.from_json(cache)
    entry = {
        "artifact": artifact.tag.short,
        "tree": artifact.tree,
        "commit": artifact.commit,
        "parts": parts.to_json(),
    }
    return entry_files(parts.key, entry)
