"""Whether a writer may rely on an object that is there already instead of writing it.

What no ref reaches yet is removed once it is old, so a writer makes such an object young before it relies on it, as
git's own do: a loose one by its file's time, a packed one by its pack's. Each object of a cruft pack has a time of its
own, which nobody can set from outside: what only such a pack holds is written again. Source: gitformat-pack(5). Not
here: writing.
"""

from __future__ import annotations

import mmap
import os
import struct
from bisect import bisect_left
from pathlib import Path

from workbench.domain.ids import ObjectId

_MAGIC = b"\xfftOc\x00\x00\x00\x02"
_NAMES = len(_MAGIC) + 4 * 256  # where the sorted names begin, 20 bytes each


class Reuse:
    """The objects of one folder. Its pack indexes are mapped on first use: let go of it when a batch is written."""

    def __init__(self, objects: Path) -> None:
        self._objects = objects
        self._indexes: dict[Path, mmap.mmap] | None = None

    def keep(self, id: ObjectId) -> bool:
        """Make an object young; False where only a cruft pack holds it, or nothing does: then it has to be written."""
        if _touch(self._objects / id[:2] / id[2:]):
            return True
        if self._indexes is None:
            self._indexes = _mapped(self._objects / "pack")
        name = bytes.fromhex(id)
        return any(
            _holds(index, name) and not path.with_suffix(".mtimes").exists() and _touch(path.with_suffix(".pack"))
            for path, index in self._indexes.items()
        )


def has_cruft(objects: Path) -> bool:
    """Whether some pack is a cruft pack: few repositories have one, and only for some weeks."""
    try:
        return any(name.endswith(".mtimes") for name in os.listdir(objects / "pack"))
    except FileNotFoundError:
        return False


def _mapped(folder: Path) -> dict[Path, mmap.mmap]:
    """The indexes of the packs. One that has gone, or is of another format, is left out: more is written then."""
    found = {}
    for path in sorted(folder.glob("pack-*.idx")):
        try:
            with path.open("rb") as file:
                index = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            continue
        if index[: len(_MAGIC)] == _MAGIC and len(index) >= _NAMES:
            found[path] = index
    return found


def _holds(index: mmap.mmap, name: bytes) -> bool:
    """Whether a version 2 index lists a name: the fanout says where the names with this first byte begin and end."""
    first = name[0]
    begin = struct.unpack_from(">I", index, len(_MAGIC) + 4 * (first - 1))[0] if first else 0
    end = struct.unpack_from(">I", index, len(_MAGIC) + 4 * first)[0]
    at = begin + bisect_left(range(begin, end), name, key=lambda number: _name(index, number))
    return at < end and _name(index, at) == name


def _name(index: mmap.mmap, number: int) -> bytes:
    start = _NAMES + 20 * number
    return index[start : start + 20]


def _touch(path: Path) -> bool:
    try:
        os.utime(path)
    except OSError:  # not there, or another user's
        return False
    return True
