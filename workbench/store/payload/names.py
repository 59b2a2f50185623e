"""Which paths a payload may hold. They come from strangers and end up on disks of every kind.

``check_path`` is what we read and write; ``check_travels``, for what is about to be made, is what other hubs take.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence

from workbench.domain.errors import Refused
from workbench.domain.ids import ZERO_ID
from workbench.domain.tree_rules import (
    FILE_MODES,
    FOLDER_MODE,
    Problem,
    RawEntry,
    TreeLimits,
    judge_attributes,
    judge_entries,
    shown,
)

MAX_DEPTH = 48  # folders; the tree above a payload needs some of the 64 that a walk allows
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 3000
_LIMITS = TreeLimits(blob_bytes=None)  # as a hub judges a payload that is pushed or unbundled
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def check_path(path: str) -> str:
    """A relative '/'-separated path with no way out of its folder and nothing that hides what it is."""
    rule = _broken_rule(path)
    if rule:
        raise Refused(f"payload path {path[:200]!r} {rule}", "rename the file, or leave it out")
    return path


def _broken_rule(path: str) -> str:
    parts = path.split("/")
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if len(encoded) > MAX_PATH_BYTES or len(parts) > MAX_DEPTH:
        return "is too long or too deep"
    if any(part in ("", ".", "..") or _is_dot_git(part) for part in parts):
        return "has a part that is empty, '.', '..' or '.git'"
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return f"has a name over {MAX_NAME_BYTES} bytes"
    if "\\" in path or any(unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in _BIDI for c in path):
        return "has a backslash, a control character or a text direction mark"
    if unicodedata.normalize("NFC", path) != path:
        return "is not in Unicode normal form C"
    return ""


def _is_dot_git(part: str) -> bool:
    """``.git`` as HFS+ and NTFS would read it."""
    return part.casefold().rstrip(". ") in (".git", "git~1")


def check_distinct(paths: Iterable[str]) -> None:
    """No two paths, and no path and a folder above another, differ by case alone: some disks hold only one of them."""
    spelled: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            prefix = "/".join(parts[:depth])
            other = spelled.setdefault(prefix.casefold(), prefix)
            if other != prefix:
                raise Refused(f"payload paths {other!r} and {prefix!r} differ by case alone", "rename one of them")


def check_travels(paths: Sequence[str], read: Callable[[str, int], bytes]) -> None:
    """Refuses a payload that no other hub would take. ``read`` gives the beginning of a file, so many bytes of it."""
    problem = _problem(paths, read)
    if problem:
        raise Refused(f"no hub would take this payload: {problem.what} ({problem.rule})", problem.fix)


def _problem(paths: Sequence[str], read: Callable[[str, int], bytes]) -> Problem | None:
    folders: dict[str, dict[str, RawEntry]] = {}
    for path in paths:
        *above, name = path.split("/")
        for depth, folder in enumerate(above):
            folders.setdefault("/".join(above[:depth]), {})[folder] = _entry(folder, FOLDER_MODE)
        folders.setdefault("/".join(above), {})[name] = _entry(name, FILE_MODES[0])
    for folder, entries in folders.items():
        if problem := judge_entries(sorted(entries.values(), key=_order), folder, _LIMITS):
            return problem
    if sum(map(len, folders.values())) >= _LIMITS.paths:
        return Problem("paths", f"it has {len(paths):,} files and their folders", "pack them into fewer files")
    for path in paths:
        if path.rpartition("/")[2].lower() == ".gitattributes":
            data = read(path, _LIMITS.attributes_bytes + 1)
            if len(data) > _LIMITS.attributes_bytes:
                return Problem("size", f"{shown(path)} is over 64 KiB", "shorten it")
            if problem := judge_attributes(data, path):
                return problem
    return None


def _entry(name: str, mode: bytes) -> RawEntry:
    return RawEntry(mode, name.encode(), ZERO_ID)


def _order(entry: RawEntry) -> bytes:
    return entry.name + b"/" if entry.mode == FOLDER_MODE else entry.name
