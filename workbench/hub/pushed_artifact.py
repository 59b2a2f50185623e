"""Whether a pushed artifact tag holds what its manifest says: shape, file list, sizes and checksums.

Every byte of the payload is hashed, but what a hostile tree names over and over only so many times: a pack of some
kilobytes can name one blob in a million places.
"""

from __future__ import annotations

import hashlib
from collections.abc import MutableSet, Sequence
from dataclasses import dataclass, field

from workbench.domain.errors import Corrupt, Refused, UserError
from workbench.domain.ids import ObjectId, object_id, ulid
from workbench.domain.manifest import MANIFEST, PAYLOAD, FileEntry, Manifest, chunk_name
from workbench.domain.refs import ArtifactTag
from workbench.domain.tree_rules import FOLDER_MODE, RawEntry, shown
from workbench.hub.commits import RawCommit, read_commit
from workbench.hub.objects import PushedObjects, tree_entries

_AGAIN = "publish it again with `workbench`"
MAX_MANIFEST_BYTES = 32 << 20
MAX_BLOB_BYTES = 16 << 20  # larger files are trees of chunks
MAX_AGAIN_BYTES = 512 << 20  # of blobs that were hashed before in the same payload,
AGAIN_FACTOR = 8  # and this many times what all of its blobs hold
_KEPT = 4  # blobs at hand: what is named again mostly is named soon


def check_artifact(
    objects: PushedObjects, tag: ArtifactTag, commit: RawCommit, sound: MutableSet[ObjectId]
) -> Manifest:
    """Refused, with the file that is wrong, unless everything agrees. The tree has been walked before. ``sound``
    remembers trees whose files are what their manifest says."""
    if commit.parents:
        raise Refused(f"artifact {tag.short} has a parent commit", "an artifact is parentless: publish it again")
    top = {entry.name: entry for entry in tree_entries(objects, commit.tree)}
    if set(top) not in ({MANIFEST.encode(), PAYLOAD.encode()}, {MANIFEST.encode()}):
        raise Refused(f"artifact {tag.short} is not manifest.json and payload/", "publish it again with workbench")
    manifest = _manifest(objects, tag, top[MANIFEST.encode()])
    if commit.tree not in sound:
        _check_files(objects, tag, top.get(PAYLOAD.encode()), manifest)
        sound.add(commit.tree)
    _check_trailers(objects, tag, commit.id, manifest)
    return manifest


def _check_files(objects: PushedObjects, tag: ArtifactTag, payload: RawEntry | None, manifest: Manifest) -> None:
    folders: dict[ObjectId, dict[bytes, RawEntry]] = {}
    contents = _Contents(objects)
    for entry in manifest.files:
        _check_file(objects, tag, _entry(objects, payload, entry.path, folders), entry, contents)
    listed = sum(entry.chunks or 1 for entry in manifest.files)
    held = _count(objects, payload)
    if held != listed:
        raise Refused(
            f"artifact {tag.short} holds {held} payload objects, its manifest lists {listed}",
            "publish it again: every file is listed",
        )


def _check_trailers(objects: PushedObjects, tag: ArtifactTag, commit: ObjectId, manifest: Manifest) -> None:
    """What the commit says of the inputs is what the manifest says; where an input is here, it is that very tree."""
    where = f"artifact {tag.short}"
    trailers = objects.view.commit(commit).trailers
    try:
        inputs = [_input(value) for key, value in trailers if key == "Input"]
        for key, check in (("Source", object_id), ("Run", ulid)):
            values = [value for name, value in trailers if name == key]
            if len(values) > 1:
                raise UserError(f"{len(values)} trailers {key}")
            for value in values:
                check(value)
    except UserError as error:
        raise Refused(f"{where} has a wrong trailer: {shown(error.what)}", _AGAIN) from error
    if sorted((t.kind, t.name) for t, _ in inputs) != sorted((each.kind, each.name) for each in manifest.inputs):
        raise Refused(f"{where}: its trailers name other inputs than its manifest", _AGAIN)
    trees = {(each.kind, each.name, each.tree) for each in manifest.inputs}
    for input_tag, id in inputs:
        if objects.header(id) and (input_tag.kind, input_tag.name, read_commit(objects, id).tree) not in trees:
            raise Refused(
                f"{where}: its input {input_tag.short} {id[:10]} is not the tree that its manifest says", _AGAIN
            )


def _input(value: str) -> tuple[ArtifactTag, ObjectId]:
    short, _, commit = value.partition(" ")
    return ArtifactTag.parse(short), object_id(commit)


def _manifest(objects: PushedObjects, tag: ArtifactTag, entry: RawEntry) -> Manifest:
    found = objects.header(entry.id)
    if entry.mode == FOLDER_MODE or found is None or found[1] > MAX_MANIFEST_BYTES:
        raise Refused(f"artifact {tag.short}: manifest.json is not a file of at most 32 MiB", "publish it again")
    try:
        manifest = Manifest.from_bytes(objects.read(entry.id))
    except (Corrupt, UserError) as error:
        raise Refused(f"artifact {tag.short}: {error.what}", "publish it again with `workbench`") from error
    if (manifest.kind, manifest.name) != (tag.kind, tag.name):
        raise Refused(
            f"artifact {tag.short}: its manifest says {manifest.kind}/{shown(manifest.name)}", "tag it by that name"
        )
    paths = [file.path for file in manifest.files]
    if len(set(paths)) != len(paths):
        raise Refused(f"artifact {tag.short}: its manifest lists a file twice", "publish it again")
    return manifest


def _entry(
    objects: PushedObjects, payload: RawEntry | None, path: str, folders: dict[ObjectId, dict[bytes, RawEntry]]
) -> RawEntry | None:
    entry = payload
    for part in path.split("/"):
        if entry is None or entry.mode != FOLDER_MODE:
            return None
        if entry.id not in folders:
            folders[entry.id] = {found.name: found for found in tree_entries(objects, entry.id)}
        entry = folders[entry.id].get(part.encode("utf-8", "replace"))
    return entry


def _check_file(
    objects: PushedObjects, tag: ArtifactTag, entry: RawEntry | None, file: FileEntry, contents: _Contents
) -> None:
    where = f"artifact {tag.short}: {shown(file.path)}"
    if entry is None:
        raise Refused(f"{where} is in the manifest but not in the payload", "publish it again")
    blobs = [entry.id]
    if entry.mode == FOLDER_MODE:
        chunks = _chunks(objects, entry.id)
        if [name for name, _ in chunks] != [chunk_name(index) for index in range(len(chunks))]:
            raise Refused(f"{where} has chunks of other names than 00/000, 00/001, …", _AGAIN)
        if len(chunks) != file.chunks:
            raise Refused(f"{where} is not the {file.chunks} chunks that its manifest says", _AGAIN)
        blobs = [id for _, id in chunks]
    elif file.chunks:
        raise Refused(f"{where} is one blob, its manifest says {file.chunks} chunks", "publish it again")
    if contents.of(entry.id, blobs, where) != (file.size, file.sha256):
        raise Refused(f"{where} does not match its checksum", "it was changed after it was published: publish it again")


def _chunks(objects: PushedObjects, file: ObjectId) -> list[tuple[str, ObjectId]]:
    """The blobs of a file that was cut, with their names below it, in Git's order."""
    found = []
    for group in tree_entries(objects, file):
        inner = tree_entries(objects, group.id) if group.mode == FOLDER_MODE else [group]
        above = f"{group.name.decode()}/" if group.mode == FOLDER_MODE else ""
        found += [(above + chunk.name.decode(), chunk.id) for chunk in inner]
    return found


@dataclass
class _Contents:
    """Sizes and sha256 of the files of one payload."""

    objects: PushedObjects
    _known: dict[ObjectId, tuple[int, str]] = field(default_factory=dict)  # by blob, or by tree of chunks
    _seen: set[ObjectId] = field(default_factory=set)
    _kept: dict[ObjectId, bytes] = field(default_factory=dict)
    _first_bytes: int = 0
    _again_bytes: int = 0

    def of(self, id: ObjectId, blobs: Sequence[ObjectId], where: str) -> tuple[int, str]:
        if id not in self._known:
            digest, size = hashlib.sha256(), 0
            for blob in blobs:
                data = self._read(blob, where)
                digest.update(data)
                size += len(data)
            self._known[id] = (size, digest.hexdigest())
        return self._known[id]

    def _read(self, blob: ObjectId, where: str) -> bytes:
        found = self.objects.header(blob)
        if found is None or found[0] != "blob" or found[1] > MAX_BLOB_BYTES:
            raise Refused(f"{where} has a piece over {MAX_BLOB_BYTES >> 20} MiB", "publish it again: it is chunked")
        if blob in self._seen:
            self._again_bytes += found[1]
        else:
            self._seen.add(blob)
            self._first_bytes += found[1]
        if self._again_bytes > MAX_AGAIN_BYTES + AGAIN_FACTOR * self._first_bytes:
            raise Refused(
                f"{where}: its payload names the same pieces over and over, {self._again_bytes >> 20} MiB so far",
                "publish files that differ, or fewer of them",
            )
        data = self._kept.pop(blob, None)
        if data is None:
            data = self.objects.read(blob)
        self._kept[blob] = data
        if len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return data


def _count(objects: PushedObjects, payload: RawEntry | None) -> int:
    """Blobs below the payload; shared folders count as often as they appear (the walk has bounded that)."""
    if payload is None:
        return 0
    memo: dict[ObjectId, int] = {}

    def count(tree: ObjectId) -> int:  # as deep as the walk allowed
        if tree not in memo:
            memo[tree] = sum(count(e.id) if e.mode == FOLDER_MODE else 1 for e in tree_entries(objects, tree))
        return memo[tree]

    return count(payload.id)
