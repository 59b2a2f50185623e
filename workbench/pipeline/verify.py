"""``verify REF``: an artifact's bytes, tree and lineage, read again from the objects and counted again by ourselves.

Nothing is believed: each blob and tree is hashed as Git does, each file as the manifest does. Not here: building it
again (``rebuild``), and the health of the repository as a whole (``Repository.check``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workbench.domain.errors import Corrupt, NotFound, WorkbenchError
from workbench.domain.ids import ObjectId
from workbench.domain.manifest import MANIFEST, PAYLOAD, FileEntry
from workbench.domain.refs import ArtifactTag
from workbench.ports.store import Artifact, Finding, Objects, Repository, TreeEntry

_FOLDER = 0o40000


def verify(repository: Repository, artifact: Artifact) -> Sequence[Finding]:
    """What was checked, one line each; an ``error`` says that the artifact is not what its manifest says."""
    check = _Check(repository.objects, artifact)
    return [
        *check.objects_are_whole(),
        *check.tree_is_manifest(),
        *check.files_are_manifest(),
        *_lineage(repository, artifact),
    ]


@dataclass(frozen=True)
class _Check:
    objects: Objects
    artifact: Artifact

    def objects_are_whole(self) -> Iterator[Finding]:
        """Every tree and blob has the id that its bytes give."""
        number = 0
        try:
            for id, kind, data in self._all(self.artifact.tree):
                number += 1
                if hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest() != id:
                    yield _error(
                        f"{kind} {id} does not have the bytes of its name", "restore it from another clone: git fetch"
                    )
        except WorkbenchError as error:
            yield _error(f"an object cannot be read: {error.what}", "restore it from another clone: git fetch")
            return
        yield Finding("ok", f"{number} objects have the ids of their bytes")

    def _all(self, tree: ObjectId) -> Iterator[tuple[ObjectId, str, bytes]]:
        entries = self.objects.list(tree)
        yield tree, "tree", b"".join(_encoded(entry) for entry in entries)
        for entry in entries:
            if entry.mode == _FOLDER:
                yield from self._all(entry.id)
            else:
                yield entry.id, "blob", self.objects.read_blob(entry.id)

    def tree_is_manifest(self) -> Iterator[Finding]:
        """The payload holds what the manifest lists, and nothing else."""
        top = {entry.path for entry in self.objects.list(self.artifact.tree)}
        for extra in sorted(top - {MANIFEST, PAYLOAD}):
            yield _error(f"the tree holds {extra}, which no artifact has", "it was not made by a workbench")
        chunked = {file.path for file in self.artifact.manifest.files if file.chunks}
        plain = {file.path for file in self.artifact.manifest.files if not file.chunks}
        found = {entry.path for entry in self.objects.walk(self.artifact.tree, PAYLOAD)} if PAYLOAD in top else set()
        parts = {path: file for path in found for file in _ancestors(path) if file in chunked}
        for path in sorted(plain - found) + sorted(chunked - set(parts.values())):
            yield _error(f"the manifest lists {path}, which the tree does not hold", "restore it from another clone")
        for path in sorted(found - set(parts) - plain):
            yield _error(f"the tree holds {path}, which the manifest does not list", "it was not made by a workbench")
        yield Finding("ok", f"the manifest lists {len(self.artifact.manifest.files)} files")

    def files_are_manifest(self) -> Iterator[Finding]:
        """Sizes and sha256 of all files."""
        size_bytes = 0
        for file in self.artifact.manifest.files:
            digest, length = hashlib.sha256(), 0
            try:
                for data in self._content(file):
                    digest.update(data)
                    length += len(data)
            except (NotFound, Corrupt) as error:
                yield _error(f"{file.path} cannot be read: {error.what}", "restore it from another clone: git fetch")
                continue
            if (digest.hexdigest(), length) != (file.sha256, file.size):
                yield _error(f"{file.path} is not what the manifest says", "restore it from another clone: git fetch")
            size_bytes += length
        yield Finding("ok", f"{size_bytes} bytes have the checksums of the manifest")

    def _content(self, file: FileEntry) -> Iterator[bytes]:
        entry = self.objects.entry(self.artifact.tree, f"{PAYLOAD}/{file.path}")
        if entry is None:
            raise NotFound(f"{file.path} is not in the tree")
        if not file.chunks:
            yield self.objects.read_blob(entry.id)
            return
        parts = list(self.objects.walk(entry.id))
        if len(parts) != file.chunks:
            raise Corrupt(f"{file.path} has {len(parts)} parts, not {file.chunks}")
        for part in parts:
            yield self.objects.read_blob(part.id)


def _lineage(repository: Repository, artifact: Artifact) -> Iterator[Finding]:
    """The inputs that the trailers name are there, and are those of the manifest."""
    trees = {each.tree for each in artifact.manifest.inputs}
    named = set()
    for short, commit in artifact.inputs:
        try:
            found = repository.artifacts.get(ArtifactTag.parse(short))
        except NotFound:
            yield Finding("warning", f"its input {short} is not here", f"git fetch hub tag {short}")
            continue
        if found.commit != commit:
            yield _error(f"its input {short} is another commit than the one it was made from", "run `workbench doctor`")
        elif found.tree not in trees:
            yield _error(f"its input {short} is not one that the manifest lists", "it was not made by a workbench")
        else:
            named.add(found.tree)
            yield Finding("ok", f"made from {short}")
    if len(artifact.inputs) < len(artifact.manifest.inputs):
        yield _error("the manifest lists more inputs than the commit names", "it was not made by a workbench")


def _ancestors(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _encoded(entry: TreeEntry) -> bytes:
    return f"{entry.mode:o} {entry.path}".encode() + b"\0" + bytes.fromhex(entry.id)


def _error(what: str, fix: str) -> Finding:
    return Finding("error", what, fix)
