"""``ports.store.Objects`` over any raw database: trees by path, commits, tags, bounded walks.

Trees of strangers are walked without recursion and within bounds, so that neither a bomb nor a deep tree hurts.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from workbench.domain.errors import Corrupt, NotFound, Refused, UserError
from workbench.domain.ids import EMPTY_TREE, ObjectId
from workbench.ports.store import CommitInfo, TreeEntry
from workbench.store.git.database import Database
from workbench.store.git.encoding import (
    FILE_MODE,
    TREE_MODE,
    Item,
    decode_commit,
    encode_commit,
    encode_tag,
    encode_tree,
    object_id_of,
    tag_target,
    tree_items,
)

MAX_DEPTH = 64
MAX_PATHS = 1_000_000
_MAX_TAGS = 8  # a tag of a tag of …
_KEPT_TREES = 256
_KEPT_TREE_BYTES = 64 << 10


class ObjectStore:
    """Git's objects by meaning. Immutable, so parsed trees are kept (a few hundred small ones).

    ``cut`` are the commits at which a shallow clone was cut off: for git, and for us, they have no parents.
    """

    def __init__(self, database: Database, cut: Container[str] = ()) -> None:
        self._database = database
        self._cut = cut
        self._trees: dict[ObjectId, tuple[Item, ...]] = {}

    # --- reading -----------------------------------------------------------------------------------------------------

    def exists(self, id: ObjectId) -> bool:
        return self._database.header(id) is not None

    def kind(self, id: ObjectId) -> str:
        return self._header(id)[0]

    def size(self, id: ObjectId) -> int:
        """The number of bytes of an object's content."""
        return self._header(id)[1]

    def read_blob(self, id: ObjectId) -> bytes:
        return self._read(id, "blob")

    def stream_blob(self, id: ObjectId, out: Callable[[bytes], object]) -> int:
        """Hand a blob of any size over in pieces, in bounded memory; its size in bytes."""
        return self._database.stream(id, out)

    def entry(self, tree_ish: ObjectId, path: str) -> TreeEntry | None:
        found = Item("", TREE_MODE, self._tree_of(tree_ish))
        for name in [part for part in path.split("/") if part]:
            if not found.is_tree:
                return None
            inside = next((item for item in self._items(found.id) if item.name == name), None)
            if inside is None:
                return None
            found = inside
        return TreeEntry(path, found.mode, found.id)

    def read_file(self, tree_ish: ObjectId, path: str) -> bytes:
        found = self.entry(tree_ish, path)
        if found is None or found.mode == TREE_MODE:
            raise NotFound(f"no file {path!r} in {tree_ish}", "list what is there with `workbench show`")
        return self.read_blob(found.id)

    def list(self, tree_ish: ObjectId, path: str = "") -> Sequence[TreeEntry]:
        return [TreeEntry(item.name, item.mode, item.id) for item in self._items(self._folder(tree_ish, path))]

    def walk(self, tree_ish: ObjectId, path: str = "") -> Iterator[TreeEntry]:
        seen = 0
        open_folders = [("", iter(self._items(self._folder(tree_ish, path))))]
        while open_folders:
            prefix, items = open_folders[-1]
            item = next(items, None)
            if item is None:
                open_folders.pop()
                continue
            seen += 1
            if seen > MAX_PATHS:
                raise Refused(f"tree {tree_ish} holds more than {MAX_PATHS} paths", "it is a bomb, or too large")
            if not item.is_tree:
                yield TreeEntry(prefix + item.name, item.mode, item.id)
            elif len(open_folders) >= MAX_DEPTH:
                raise Refused(f"tree {tree_ish} is nested deeper than {MAX_DEPTH} folders", "flatten it")
            else:
                open_folders.append((f"{prefix}{item.name}/", iter(self._items(item.id))))

    def measure(self, tree_ish: ObjectId) -> tuple[int, int]:
        """Number of paths and depth of a tree, each object read once: a bomb is measured as fast as it is small.

        Refused beyond the bounds of a walk.
        """
        root = self._tree_of(tree_ish)
        sizes: dict[ObjectId, tuple[int, int]] = {}
        waiting = [(root, False)]
        num_open = 0
        while waiting:
            tree, inside_done = waiting.pop()
            folders = [] if tree in sizes else [item.id for item in self._items(tree) if item.is_tree]
            if inside_done:
                num_open -= 1
                paths = len(self._items(tree)) + sum(sizes[folder][0] for folder in folders)
                depth = 1 + max((sizes[folder][1] for folder in folders), default=0)
                if paths > MAX_PATHS or depth > MAX_DEPTH:
                    raise Refused(
                        f"tree {root} has {paths} paths, {depth} folders deep, below {tree}",
                        f"{MAX_PATHS} paths and {MAX_DEPTH} folders are allowed",
                    )
                sizes[tree] = (paths, depth)
            elif tree not in sizes:
                num_open += 1
                if num_open > MAX_DEPTH:
                    raise Refused(f"tree {root} is nested deeper than {MAX_DEPTH} folders", "flatten it")
                waiting.append((tree, True))
                waiting.extend((folder, False) for folder in dict.fromkeys(folders) if folder not in sizes)
        return sizes[root]

    def commit(self, id: ObjectId) -> CommitInfo:
        found = decode_commit(id, self._read(id, "commit"))
        return replace(found, parents=()) if found.parents and id in self._cut else found

    def peel(self, id: ObjectId) -> ObjectId:
        for _ in range(_MAX_TAGS):
            kind, data = self._small(id)
            if kind == "commit":
                return id
            if kind != "tag":
                raise UserError(f"{id} is a {kind}, not a commit", "name a tag, a branch or a commit")
            id = tag_target(id, data)
        raise Refused(f"tag {id} is nested too deep", "tag the commit itself")

    def history(self, start: ObjectId, limit: int = 100) -> Sequence[CommitInfo]:
        """First parents only, newest first."""
        found: list[CommitInfo] = []
        following: ObjectId | None = self.peel(start)
        while following is not None and len(found) < limit:
            found.append(self.commit(following))
            following = found[-1].parents[0] if found[-1].parents else None
        return found

    # --- adding ------------------------------------------------------------------------------------------------------

    def add_blob(self, data: bytes) -> ObjectId:
        return self._database.write("blob", data)

    def add_tree(self, base: ObjectId | None, changes: Mapping[str, bytes | ObjectId | None]) -> ObjectId:
        nested: _Nested = {}
        for path in sorted(changes):
            _place(nested, path, changes[path])
        return self._changed_tree(base, nested) or self._database.write("tree", b"")

    def add_commit(
        self,
        tree: ObjectId,
        *,
        parents: Sequence[ObjectId],
        message: str,
        who: str,
        time_ms: int,
        trailers: Sequence[tuple[str, str]] = (),
    ) -> ObjectId:
        return self._database.write("commit", encode_commit(tree, parents, message, who, time_ms, trailers))

    def add_tag(self, name: str, target: ObjectId, *, message: str, who: str, time_ms: int) -> ObjectId:
        return self._database.write("tag", encode_tag(name, target, self.kind(target), message, who, time_ms))

    # --- inside ------------------------------------------------------------------------------------------------------

    def _header(self, id: ObjectId) -> tuple[str, int]:
        header = self._database.header(id)
        if header is None:
            self._database.read(id)  # raises the error that says so
            raise Corrupt(f"object {id} cannot be read", "run `workbench doctor`")
        return header

    def _small(self, id: ObjectId) -> tuple[str, bytes]:
        """A commit, tag or tree; of a blob only the kind, so that a large one is not read by mistake."""
        kind, _ = self._header(id)
        return self._database.read(id) if kind != "blob" else (kind, b"")

    def _read(self, id: ObjectId, wanted: str) -> bytes:
        kind, data = self._database.read(id)
        if kind != wanted:
            raise UserError(f"{id} is a {kind}, not a {wanted}", f"name a {wanted}")
        return data

    def _tree_of(self, tree_ish: ObjectId) -> ObjectId:
        if tree_ish in self._trees or tree_ish == EMPTY_TREE:
            return tree_ish
        kind, data = self._small(tree_ish)
        if kind == "tree":
            return tree_ish
        if kind == "commit":
            return decode_commit(tree_ish, data).tree
        return self.commit(self.peel(tree_ish)).tree

    def _items(self, tree: ObjectId) -> tuple[Item, ...]:
        known = self._trees.get(tree)
        if known is not None:
            return known
        if tree == EMPTY_TREE:
            return ()
        data = self._read(tree, "tree")
        items = tuple(tree_items(data))
        if len(data) <= _KEPT_TREE_BYTES:
            while len(self._trees) >= _KEPT_TREES:
                self._trees.pop(next(iter(self._trees)), None)
            self._trees[tree] = items
        return items

    def _folder(self, tree_ish: ObjectId, path: str) -> ObjectId:
        found = self.entry(tree_ish, path)
        if found is None or found.mode != TREE_MODE:
            raise NotFound(f"no folder {path!r} in {tree_ish}", "list what is there with `workbench show`")
        return found.id

    def _changed_tree(self, base: ObjectId | None, changes: _Nested) -> ObjectId | None:
        """A folder after its changes, or None when nothing is left in it. As deep as the caller's paths."""
        items = {item.name: item for item in self._items(base)} if base else {}
        for name, change in changes.items():
            old = items.pop(name, None)
            if isinstance(change, dict):
                inside = self._changed_tree(old.id if old and old.is_tree else None, change)
                if inside is not None:
                    items[name] = Item(name, TREE_MODE, inside)
                elif old is not None and not old.is_tree:
                    items[name] = old  # what was to be removed below it was not there
            elif isinstance(change, bytes):
                items[name] = Item(name, _file_mode(old), self.add_blob(change))
            elif change is not None:
                is_tree = self.kind(change) == "tree"
                items[name] = Item(name, TREE_MODE if is_tree else _file_mode(old), change)
        if not items:
            return None
        data = encode_tree(list(items.values()))
        return base if base and object_id_of("tree", data) == base else self._database.write("tree", data)


_Nested: TypeAlias = "dict[str, bytes | ObjectId | _Nested | None]"


def _file_mode(old: Item | None) -> int:
    return old.mode if old is not None and not old.is_tree else FILE_MODE


def _place(nested: _Nested, path: str, change: bytes | ObjectId | None) -> None:
    *folders, name = path.split("/")
    if len(folders) >= MAX_DEPTH or any(part in ("", ".", "..", ".git") or "\0" in part for part in (*folders, name)):
        raise UserError(f"not a path for a file in a tree: {path!r}", "use relative paths without '.', '..' and '.git'")
    for folder in folders:
        inside = nested.setdefault(folder, {})
        if not isinstance(inside, dict):
            raise UserError(f"{path!r} lies below a file that is changed as well", "give one of the two")
        nested = inside
    if name in nested:
        raise UserError(f"{path!r} is given twice, as a file and as a folder", "give one of the two")
    nested[name] = change
