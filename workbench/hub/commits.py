"""Commits and tags of a push, parsed from their bytes, and walks over history within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workbench.domain.errors import Refused
from workbench.domain.ids import ObjectId
from workbench.hub.objects import PushedObjects

MAX_COMMIT_BYTES = 1 << 20
MAX_HISTORY = 200_000


@dataclass(frozen=True)
class RawCommit:
    id: ObjectId
    tree: ObjectId
    parents: tuple[ObjectId, ...]


@dataclass(frozen=True)
class RawTag:
    id: ObjectId
    target: ObjectId
    kind: str
    name: str


def _head_lines(objects: PushedObjects, id: ObjectId, kind: str) -> list[str]:
    found = objects.header(id)
    if found is None or found[0] != kind:
        raise Refused(f"{id[:12]} is {'missing' if found is None else f'a {found[0]}'}, not a {kind}", "push a " + kind)
    if found[1] > MAX_COMMIT_BYTES:
        raise Refused(f"{kind} {id[:12]} is over 1 MiB", "shorten its message")
    return objects.read(id).partition(b"\n\n")[0].decode("utf-8", "replace").split("\n")


def read_commit(objects: PushedObjects, id: ObjectId) -> RawCommit:
    """Refused when it is no commit."""
    lines = _head_lines(objects, id, "commit")
    tree = next((line[5:45] for line in lines if line.startswith("tree ")), "")
    parents = tuple(ObjectId(line[7:47]) for line in lines if line.startswith("parent "))
    return RawCommit(id, ObjectId(tree), parents)


def read_tag(objects: PushedObjects, id: ObjectId) -> RawTag:
    """Refused when it is no annotated tag."""
    fields = dict(line.partition(" ")[::2] for line in _head_lines(objects, id, "tag"))
    return RawTag(id, ObjectId(fields.get("object", "")), fields.get("type", ""), fields.get("tag", ""))


def new_commits(objects: PushedObjects, tip: ObjectId) -> Iterator[RawCommit]:
    """The tip, and every commit that the hub did not have before this push."""
    seen, waiting = {tip}, [tip]
    while waiting:
        commit = read_commit(objects, waiting.pop())
        yield commit
        for parent in commit.parents:
            if parent not in seen and not objects.known(parent):
                seen.add(parent)
                waiting.append(parent)
        if len(seen) > MAX_HISTORY:
            raise Refused(f"more than {MAX_HISTORY:,} new commits in one push", "push the history in parts")


def is_ancestor(objects: PushedObjects, old: ObjectId, new: ObjectId) -> bool:
    seen, waiting = {new}, [new]
    for id in waiting:
        if id == old:
            return True
        for parent in read_commit(objects, id).parents:
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
        if len(seen) > MAX_HISTORY:
            raise Refused(f"the histories of {old[:12]} and {new[:12]} are too long to compare", "merge main first")
    return False
