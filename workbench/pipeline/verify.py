"""``verify REF``: an artifact's objects, manifest and lineage, read again and counted again by ourselves.

Nothing is believed: every object is hashed as Git does (``integrity``), each file as the manifest does. Not here:
building it again (``rebuild``), and the health of the repository as a whole (``Repository.check``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from workbench.domain.errors import Corrupt, NotFound, WorkbenchError
from workbench.domain.manifest import MANIFEST, PAYLOAD, FileEntry
from workbench.domain.refs import ArtifactTag
from workbench.pipeline.integrity import restoring, whole
from workbench.ports.store import Artifact, Finding, Objects, Repository


def verify(repository: Repository, artifact: Artifact) -> Sequence[Finding]:
    """What was checked, one line each; an ``error`` says that the artifact is not what its manifest says, or that
    something that its tag reaches has been damaged."""
    tag = repository.refs.get(str(artifact.tag)) or artifact.commit
    fix = restoring(repository.path, tag, with_all=True)
    check = _Check(repository.objects, artifact, fix)
    found = list(whole(repository.objects, [tag, artifact.commit, artifact.tree], repository.path))
    for part in (check.tree_is_manifest, check.files_are_manifest, lambda: _lineage(repository, artifact)):
        found.extend(_as_far_as_it_can_be_read(part, fix))
    return found


def _as_far_as_it_can_be_read(part: Callable[[], Iterator[Finding]], fix: str) -> Iterator[Finding]:
    """A damaged object ends one part of the check, not all of it."""
    try:
        yield from part()
    except WorkbenchError as error:
        yield _error(f"it cannot be read: {error.what}", fix)


_MADE_WRONG = "it was made so: publish it again from what it was made of, or take it from a hub that you trust"


@dataclass(frozen=True)
class _Check:
    objects: Objects
    artifact: Artifact
    fix: str  # for what cannot be read

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
            yield _error(f"the manifest lists {path}, which the tree does not hold", _MADE_WRONG)
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
                yield _error(f"{file.path} cannot be read: {error.what}", self.fix)
                continue
            if (digest.hexdigest(), length) != (file.sha256, file.size):
                yield _error(f"{file.path} is not what the manifest says", _MADE_WRONG)
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


def _error(what: str, fix: str) -> Finding:
    return Finding("error", what, fix)
