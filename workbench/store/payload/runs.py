"""``ports.store.RunStore``: the record, logs and checkpoints of a run, under ``refs/workbench/runs/<ulid>``.

Every write is a parentless commit that replaces the one before, moved by compare-and-swap: a checkpoint that is no
longer named frees its bytes at the next maintenance. A stored folder is ``<path>/files.json`` and ``<path>/payload/…``,
cut and verified like an artifact's payload.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from workbench.domain import ids, manifest
from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import Corrupt, Refused, UserError, WorldError
from workbench.domain.ids import ZERO_ID, ObjectId, Ulid
from workbench.domain.ledger import RefMove
from workbench.domain.manifest import PAYLOAD, FileEntry
from workbench.domain.reading import checked, items, load_json, record, row, text, whole
from workbench.domain.refs import OWN_NAMESPACE, RunRef
from workbench.ports.store import Objects, Refs
from workbench.store.payload.blobs import Blobs
from workbench.store.payload.files import locate, pour, scan, store, write_into
from workbench.store.payload.swap import swap_until_won

RUNS = f"{OWN_NAMESPACE}runs/"
FILES = "files.json"
FORMAT = 1
_WHO = "workbench <workbench@localhost>"


class StoredRuns:
    def __init__(self, objects: Objects, refs: Refs, blobs: Blobs, *, now_ms: Callable[[], int]) -> None:
        self._objects = objects
        self._refs = refs
        self._blobs = blobs
        self._now_ms = now_ms

    def list(self) -> Sequence[Ulid]:
        found = []
        for ref in self._refs.all(RUNS):
            try:
                found.append(ids.ulid(ref[len(RUNS) :]))
            except UserError:
                continue
        return sorted(found, reverse=True)

    def read(self, run: Ulid, path: str) -> bytes | None:
        top = self._refs.get(str(RunRef(run)))
        try:
            found = self._objects.entry(top, path) if top else None
            return None if found is None or found.mode == 0o40000 else self._objects.read_blob(found.id)
        except UserError as error:  # a blob, a tag of one: what came in beside us
            raise Corrupt(f"{RunRef(run)} is no run: {error.what}", "workbench doctor --quick") from error

    def write(
        self, run: Ulid, files: Mapping[str, bytes | None], *, folders: Mapping[str, Path | None] | None = None
    ) -> None:
        changes: dict[str, bytes | ObjectId | None] = dict(files)
        for path, folder in (folders or {}).items():
            changes[path] = None if folder is None else self._store_folder(folder)

        def made(old: ObjectId | None) -> ObjectId:
            tree = self._objects.add_tree(self._objects.commit(old).tree if old else None, changes)
            return self._objects.add_commit(tree, parents=(), message=f"run {run}", who=_WHO, time_ms=self._now_ms())

        swap_until_won(self._refs, RunRef(run), made)

    def _store_folder(self, folder: Path) -> ObjectId:
        with self._blobs.writer() as writer:
            blobs, files = store(folder, scan(folder), writer)
            listing = {
                "format": FORMAT,
                "files": [[entry.path, entry.sha256, entry.size, entry.chunks] for entry in files],
            }
            paths = {f"{PAYLOAD}/{path}": id for path, id in blobs.items()}
            return writer.tree({**paths, FILES: writer.blob(canonical_lines(listing))})

    def checkout_folder(self, run: Ulid, path: str, into: Path) -> bool:
        top = self._refs.get(str(RunRef(run)))
        found = self._objects.entry(top, path) if top else None
        if found is None or found.mode != 0o40000 or self._objects.entry(found.id, FILES) is None:
            return False
        if into.exists() and (not into.is_dir() or any(into.iterdir())):
            raise Refused(f"{into} is there already", "name a new or an empty folder")
        files = _listing(self._objects.read_file(found.id, FILES), path)
        into.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{into.name}.", dir=into.parent))
        try:
            located = locate(self._objects, found.id, PAYLOAD, files)
            write_into(draft, lambda create: pour(self._blobs, located, create))
            draft.rename(into)
        except OSError as error:
            raise WorldError(f"cannot write {into}: {error.strerror}", "free disk space") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return True

    def delete(self, runs: Iterable[Ulid]) -> None:
        for run in runs:
            ref = RunRef(run)
            old = self._refs.get(str(ref))
            if old is not None:
                self._refs.swap([RefMove(ref, old, ZERO_ID)])


def _listing(data: bytes, path: str) -> Sequence[FileEntry]:
    what = f"the list of files of {path}"
    return load_json(
        data, _LISTING, what=what, limits=manifest.LIMITS, hint="take another run, or make a new one: `workbench run`"
    )


def _files(files: tuple[FileEntry, ...]) -> tuple[FileEntry, ...]:
    return files


_FILE = row(
    FileEntry,
    path=text(least=1),
    sha256=checked(text(), ids.digest),
    size=whole(),
    chunks=whole(most=manifest.MAX_CHUNKS),
)
_LISTING = record(_files, format=(FORMAT,), files=items(_FILE))
