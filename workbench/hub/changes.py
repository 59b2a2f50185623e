"""Which paths differ between two commits, without reading what is equal."""

from __future__ import annotations

from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.tree_rules import FOLDER_MODE, RawEntry
from workbench.hub.commits import read_commit
from workbench.hub.objects import PushedObjects, tree_entries

MAX_CHANGED = 10_000  # after that a folder stands for what is below it


def changed_paths(objects: PushedObjects, old: ObjectId, new: ObjectId) -> frozenset[str]:
    """Paths of files that were added, removed or changed between two commits (``ZERO_ID``: none); a folder's path with
    ``/`` once there are very many."""
    old_tree, new_tree = (read_commit(objects, id).tree if id != ZERO_ID else None for id in (old, new))
    found: set[str] = set()
    waiting: list[tuple[str, ObjectId | None, ObjectId | None]] = [("", old_tree, new_tree)]
    while waiting:
        path, before_id, after_id = waiting.pop()
        before, after = _by_name(objects, before_id), _by_name(objects, after_id)
        for name in sorted(before.keys() | after.keys()):
            a, b = before.get(name), after.get(name)
            if a is not None and b is not None and (a.id, a.mode) == (b.id, b.mode):
                continue
            full = path + name.decode("utf-8", "replace")
            folders = [e.id if e is not None and e.mode == FOLDER_MODE else None for e in (a, b)]
            if (a is not None and folders[0] is None) or (b is not None and folders[1] is None):
                found.add(full)
            if folders != [None, None]:
                if len(found) >= MAX_CHANGED:
                    found.add(full + "/")
                else:
                    waiting.append((full + "/", folders[0], folders[1]))
    return frozenset(found)


def _by_name(objects: PushedObjects, tree: ObjectId | None) -> dict[bytes, RawEntry]:
    return {} if tree is None else {entry.name: entry for entry in tree_entries(objects, tree)}


def find(objects: PushedObjects, tree: ObjectId, path: str) -> RawEntry | None:
    """What stands at ``path`` in a tree."""
    entry = None
    for part in path.split("/"):
        if entry is not None and entry.mode != FOLDER_MODE:
            return None
        entry = _by_name(objects, tree).get(part.encode())
        if entry is None:
            return None
        tree = entry.id
    return entry
