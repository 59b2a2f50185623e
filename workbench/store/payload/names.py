"""Which paths a payload may hold. They come from strangers and end up on disks of every kind."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from workbench.domain.errors import Refused

MAX_DEPTH = 48  # folders; the tree above a payload needs some of the 64 that a walk allows
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 3000
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
