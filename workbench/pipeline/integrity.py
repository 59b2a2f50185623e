"""Whether everything that a ref reaches still has the bytes of its names: read again and hashed by ourselves.

Each tag, commit, tree and blob is named by the hash of its bytes, so one flipped bit in one of them is found, packed or
loose, and named with the command that brings the object back. Not here: whether an artifact is what its manifest says
(``verify``), and what no object depends on (settings, indexes, a second copy of an object: ``Repository.check``).
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from workbench.domain.errors import Corrupt, Refused, WorkbenchError
from workbench.domain.ids import ObjectId
from workbench.ports.store import Finding, Objects, TreeEntry

MAX_NAMED = 20  # faults that are named one by one
_FOLDER, _SUBMODULE = 0o40000, 0o160000


def whole(objects: Objects, starts: Sequence[ObjectId], git_dir: Path) -> Iterator[Finding]:
    """Findings about every object that ``starts`` reach, each looked at once, in memory that their number bounds."""
    waiting: list[tuple[ObjectId, str]] = [(id, "") for id in starts]
    seen = {id for id, _ in waiting}
    number = faults = 0
    while waiting:
        id, kind = waiting.pop()
        try:
            inside = _inside(objects, id, kind)
        except WorkbenchError as error:
            faults += 1
            if faults <= MAX_NAMED:
                yield Finding("error", f"{kind or 'object'} {id}: {error.what}", restoring(git_dir, id), {"object": id})
            continue
        number += 1
        for named, its_kind in inside:
            if named not in seen:
                seen.add(named)
                waiting.append((named, its_kind))
    if faults > MAX_NAMED:
        fix = restoring(git_dir, " ".join(starts), with_all=True)
        yield Finding("error", f"{faults - MAX_NAMED} more objects cannot be read", fix)
    yield Finding("ok", f"{number} objects have the ids of their bytes: tags, commits, folders, files")


def restoring(git_dir: Path, id: str, *, with_all: bool = False) -> str:
    """The command that copies an object, or all that it reaches, from a repository that has it whole: a fetch would not
    take it, for git believes that it is here."""
    folder = shlex.quote(str(git_dir / "objects" / "pack" / "pack"))
    revs = "--revs " if with_all else ""
    return f"from a clone that has it whole: echo {id} | git -C CLONE pack-objects {revs}-q {folder}"


def _inside(objects: Objects, id: ObjectId, kind: str) -> Sequence[tuple[ObjectId, str]]:
    """Check one object; what it names, each with its kind where that is known. Corrupt where the bytes are others."""
    match kind or objects.kind(id):
        case "tree":
            entries = objects.list(id)
            _compare(id, "tree", b"".join(_encoded(entry) for entry in entries))
            return [(e.id, "tree" if e.mode == _FOLDER else "blob") for e in entries if e.mode != _SUBMODULE]
        case "blob":
            _check_blob(objects, id)
            return []
        case "commit":
            info = objects.commit(id)
            return [(info.tree, "tree"), *((parent, "commit") for parent in info.parents)]
    return [(objects.peel(id), "commit")]


def _check_blob(objects: Objects, id: ObjectId) -> None:
    try:
        data = objects.read_blob(id)
    except Refused:  # too large to be held
        digest = hashlib.sha1(f"blob {objects.size(id)}\0".encode(), usedforsecurity=False)
        objects.stream_blob(id, digest.update)
        if digest.hexdigest() != id:
            raise Corrupt("it does not have the bytes of its name") from None
        return
    _compare(id, "blob", data)


def _compare(id: ObjectId, kind: str, data: bytes) -> None:
    if hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest() != id:
        raise Corrupt("it does not have the bytes of its name")


def _encoded(entry: TreeEntry) -> bytes:
    return f"{entry.mode:o} {entry.path}".encode("utf-8", "surrogateescape") + b"\0" + bytes.fromhex(entry.id)
