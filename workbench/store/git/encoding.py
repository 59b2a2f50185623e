"""Git's object formats as pure functions: ids, trees, commits, tags and trailers. Source: gitformat-* manual pages.

Not here: where objects are kept. Both adapters use this, so the memory peer has real Git ids.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workbench.domain.errors import Corrupt
from workbench.domain.ids import ObjectId
from workbench.ports.store import CommitInfo

TREE_MODE, FILE_MODE, PROGRAM_MODE, LINK_MODE, SUBMODULE_MODE = 0o40000, 0o100644, 0o100755, 0o120000, 0o160000

_TRAILER = re.compile(r"([A-Za-z][A-Za-z0-9-]*): (.*)\Z")
_PERSON = re.compile(r"([^<>]*?)\s*<([^<>]*)>\Z")


@dataclass(frozen=True)
class Item:
    """One line of a tree."""

    name: str
    mode: int
    id: ObjectId

    @property
    def is_tree(self) -> bool:
        return self.mode == TREE_MODE


def object_id_of(kind: str, data: bytes) -> ObjectId:
    digest = hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)), usedforsecurity=False)
    digest.update(data)
    return ObjectId(digest.hexdigest())


def tree_items(data: bytes) -> Iterator[Item]:
    """The lines of a tree object; names that are no UTF-8 come back with surrogate escapes."""
    position, end = 0, len(data)
    while position < end:
        blank = data.find(b" ", position, position + 8)
        nul = data.find(b"\0", blank + 1)
        if blank < 0 or nul < 0 or nul + 21 > end:
            raise Corrupt("a tree object is cut off or malformed", "run `workbench doctor`")
        name = data[blank + 1 : nul].decode("utf-8", "surrogateescape")
        try:
            mode = int(data[position:blank], 8)
        except ValueError as error:
            raise Corrupt(f"a tree object has a malformed mode before {name!r}", "run `workbench doctor`") from error
        yield Item(name, mode, ObjectId(data[nul + 1 : nul + 21].hex()))
        position = nul + 21


def encode_tree(items: Sequence[Item]) -> bytes:
    """A tree object with its lines in Git's order: names as bytes, folders as if they ended in a slash."""
    lines = []
    for item in items:
        name = item.name.encode("utf-8", "surrogateescape")
        lines.append((name + b"/" if item.is_tree else name, name, item))
    lines.sort(key=lambda line: line[0])
    return b"".join(b"%o %s\0%s" % (item.mode, name, bytes.fromhex(item.id)) for _, name, item in lines)


def person(who: str) -> str:
    """``Name <email>``, from that or from a bare name; characters that would break a commit are dropped."""
    match = _PERSON.match(who.strip())
    name, email = match.groups() if match else (who, "")
    name = "".join(c for c in name if c.isprintable() and c not in "<>").strip(" .,:;\"'\\") or "workbench"
    email = "".join(c for c in email if c.isprintable() and c not in "<> ")
    return f"{name} <{email or 'workbench@localhost'}>"


def encode_commit(
    tree: ObjectId,
    parents: Sequence[ObjectId],
    message: str,
    who: str,
    time_ms: int,
    trailers: Sequence[tuple[str, str]] = (),
) -> bytes:
    """A commit whose author and committer are the same; all times are UTC."""
    stamp = f"{person(who)} {time_ms // 1000} +0000"
    lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents), f"author {stamp}", f"committer {stamp}"]
    return ("\n".join(lines) + "\n\n" + _message(message, trailers)).encode()


def encode_tag(name: str, target: ObjectId, target_kind: str, message: str, who: str, time_ms: int) -> bytes:
    head = f"object {target}\ntype {target_kind}\ntag {name}\ntagger {person(who)} {time_ms // 1000} +0000\n\n"
    return (head + _message(message, ())).encode()


def _message(message: str, trailers: Sequence[tuple[str, str]]) -> str:
    text = message.replace("\0", "").strip("\n") or "(no message)"
    for key, value in trailers:
        assert _TRAILER.match(f"{key}: {value}"), (key, value)
    if trailers:
        text += "\n\n" + "\n".join(f"{key}: {value}" for key, value in trailers)
    return text + "\n"


def decode_commit(id: ObjectId, data: bytes) -> CommitInfo:
    head, _, message = data.partition(b"\n\n")
    tree, parents, author, time_s = "", [], "", 0
    for line in head.decode("utf-8", "replace").split("\n"):
        key, _, value = line.partition(" ")
        if key == "tree" and not tree:
            tree = value
        elif key == "parent":
            parents.append(ObjectId(value))
        elif key == "author":
            author = value[: value.rfind(">") + 1]
        elif key == "committer":
            time_s = _time_of(value)
    if len(tree) != 40:
        raise Corrupt(f"commit {id} names no tree", "run `workbench doctor`")
    text = message.decode("utf-8", "replace")
    return CommitInfo(id, ObjectId(tree), tuple(parents), text, author, time_s, trailers_of(text))


def _time_of(stamp: str) -> int:
    parts = stamp[stamp.rfind(">") + 1 :].split()
    return int(parts[0]) if parts and parts[0].isdecimal() else 0


def tag_target(id: ObjectId, data: bytes) -> ObjectId:
    line = data.partition(b"\n")[0]
    if not line.startswith(b"object ") or len(line) != 47:
        raise Corrupt(f"tag object {id} names no target", "run `workbench doctor`")
    return ObjectId(line[7:].decode("ascii", "replace"))


def trailers_of(message: str) -> tuple[tuple[str, str], ...]:
    """The ``Key: value`` lines of the last paragraph, when that paragraph holds nothing else and is not the first."""
    paragraphs = message.strip("\n").split("\n\n")
    if len(paragraphs) < 2:
        return ()
    matches = [_TRAILER.match(line) for line in paragraphs[-1].split("\n")]
    if not all(matches):
        return ()
    return tuple((match[1], match[2]) for match in matches if match)
