"""The files of ``agents/`` at a commit: what importing it reads, in the Runner and in the sandbox alike.

In the Runner they are read from Git's objects when they are asked for. The sandbox has no repository: there they come
as bytes, which ``packed`` makes and ``unpacked`` reads. Links and submodules are no files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from workbench.domain.errors import NotFound, UserError
from workbench.domain.ids import ObjectId
from workbench.ports.store import Objects

FOLDER = "agents"
MAX_FILES = 10_000
MAX_BYTES = 16 << 20  # of all files that are packed, together
_TREE = 0o40000
_FILES = (0o100644, 0o100755)


@dataclass(frozen=True)
class Source:
    """``tree`` is the id of ``agents/``; ``files`` are contents by the path below it."""

    tree: ObjectId
    files: Mapping[str, bytes]


def tree_of(objects: Objects, commit: ObjectId) -> ObjectId:
    """The tree of ``agents/`` at a commit."""
    entry = objects.entry(commit, FOLDER)
    if entry is None or entry.mode != _TREE:
        raise NotFound(f"commit {commit[:12]} has no agents/ folder", "commit one; `workbench init` makes an example")
    return entry.id


def at(objects: Objects, commit: ObjectId) -> Source:
    return of_tree(objects, tree_of(objects, commit))


def of_tree(objects: Objects, tree: ObjectId) -> Source:
    return Source(tree, _Blobs(objects, {e.path: e.id for e in objects.walk(tree) if e.mode in _FILES}))


class _Blobs(Mapping[str, bytes]):
    def __init__(self, objects: Objects, ids: Mapping[str, ObjectId]) -> None:
        self.objects, self.ids = objects, ids

    def __getitem__(self, path: str) -> bytes:
        return self.objects.read_blob(self.ids[path])

    def __contains__(self, path: object) -> bool:
        return path in self.ids

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


def packed(objects: Objects, tree: ObjectId) -> bytes:
    """All files of ``agents/`` as one stretch of bytes. UserError where they are too many or too large."""
    ids: dict[str, ObjectId] = {}
    size = 0
    for entry in objects.walk(tree):
        if entry.mode in _FILES:
            ids[entry.path] = entry.id
            size += objects.size(entry.id)
        if len(ids) > MAX_FILES or size > MAX_BYTES:
            raise UserError(
                f"agents/ holds more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB",
                "move data out of agents/: an artifact holds it better",
            )
    contents = {path: objects.read_blob(id) for path, id in ids.items()}
    head = json.dumps({"tree": tree, "files": [[path, len(data)] for path, data in contents.items()]})
    return b"\n".join([head.encode("ascii"), b"".join(contents.values())])


def unpacked(data: bytes) -> Source:
    head, _, rest = data.partition(b"\n")
    told = json.loads(head)
    files: dict[str, bytes] = {}
    start = 0
    for path, size in told["files"]:
        files[path] = rest[start : start + size]
        start += size
    return Source(ObjectId(told["tree"]), files)
