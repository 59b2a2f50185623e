"""Which names of strangers we write to disk: one rule for archives, Git trees, crates and folders. Pure.

A name is refused when any file system or tool that we know would read it as something else: it leaves the folder, is a
device, hides in a terminal, or falls together with another name where case or Unicode form is ignored. Whatever a hub
would not take in a pushed tree (``domain.tree_rules``) is refused as well: else it would fail the whole crawl later.
"""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.domain.tree_rules import TreeLimits, judge_name
from workbench.fetch.limits import Limits
from workbench.ports.fetch import Refusal

BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\u200c\u200d\ufeff")
FORBIDDEN = frozenset('\\:*?"<>|')
TREE = TreeLimits()
REPOSITORY = frozenset(["HEAD", "objects", "refs"])  # a folder of these looks like a bare repository
_PLAIN = re.compile(r"[A-Za-z0-9_+@=,][A-Za-z0-9_.+@=,-]*(?<!\.)\Z")


@dataclass(frozen=True)
class Reason:
    rule: str
    detail: str = ""


def check(path: str, limits: Limits) -> Reason | None:
    """Why ``path`` (``/``-separated, as the stranger wrote it) is refused, or None."""
    if not path:
        return Reason("name", "empty")
    if len(path.encode("utf-8", "surrogateescape")) > limits.path_bytes:
        return Reason("name", f"longer than {limits.path_bytes} bytes")
    if path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", path):
        return Reason("absolute")
    parts = path.split("/")
    if len(parts) > limits.depth:
        return Reason("depth", f"more than {limits.depth} components")
    for part in parts:
        if reason := _check_component(part):
            return reason
    return None


def _check_component(part: str) -> Reason | None:
    if part == "..":
        return Reason("parent")
    if part in ("", "."):
        return Reason("name", "empty component")
    if len(part) <= 200 and _PLAIN.match(part) and judge_name(part.encode(), TREE) is None:
        return None
    if any("\ud800" <= char <= "\udfff" for char in part):
        return Reason("name", "not UTF-8")
    if any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in part):
        return Reason("control", "control character")
    if any(char in BIDI for char in part):
        return Reason("control", "bidirectional or invisible character")
    if len(part.encode()) > 255:
        return Reason("name", "component longer than 255 bytes")
    if forbidden := sorted(set(part) & FORBIDDEN):
        return Reason("name", f"holds {forbidden[0]}")
    if part[-1] in ". ":
        return Reason("name", "ends in a dot or blank")
    if part[0] in "- ~":
        return Reason("name", "begins with a dash, blank or tilde")
    if folded(part) in (".git", "git~1"):
        return Reason("git", "a Git directory")
    if unicodedata.normalize("NFC", part) != part:
        return Reason("form", "not in Unicode form NFC")
    judged = judge_name(part.encode(), TREE)
    return Reason("name", judged[0].replace("-", " ")) if judged else None


def folded(name: str) -> str:
    """The form under which names fall together on systems that ignore case and Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_wanted(path: str, wanted: Sequence[str]) -> bool:
    """Whether the last component, or for a glob with a slash the whole path, matches one of the globs."""
    last = path.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(path if "/" in glob else last, glob) for glob in wanted)


class Taken:
    """The names taken so far, so that none replaces another on any file system."""

    def __init__(self) -> None:
        self._names: dict[str, tuple[str, bool]] = {}  # folded prefix -> (prefix as written, is a file)
        self._below: dict[str, int] = {}  # folder -> how many names in it are taken

    def claim(self, path: str) -> Reason | None:
        """Take ``path`` for a file, or say why it cannot be; a refused path takes nothing."""
        new: dict[str, tuple[str, bool]] = {}
        parts = path.split("/")
        prefix, key = "", ""
        for index, part in enumerate(parts):
            prefix, key = (f"{prefix}/{part}", f"{key}/{folded(part)}") if index else (part, folded(part))
            is_file = index == len(parts) - 1
            there = self._names.get(key)
            if there is None:
                new[key] = (prefix, is_file)
            elif there[0] != prefix:
                return Reason("case", f"falls together with {shown(there[0])}")
            elif is_file or there[1]:
                return Reason("duplicate", "taken before" if is_file and there[1] else "both a file and a folder")
        for prefix, _ in new.values():
            if reason := self._too_many(*_split(prefix)):
                return reason
        for prefix, _ in new.values():
            above = _split(prefix)[0]
            self._below[above] = self._below.get(above, 0) + 1
        self._names.update(new)
        return None

    def _too_many(self, above: str, name: str) -> Reason | None:
        if self._below.get(above, 0) >= TREE.entries:
            return Reason("count", f"the folder has more than {TREE.entries} entries")
        beside = [f"{above}/{other}" if above else other for other in REPOSITORY - {name}]
        if name in REPOSITORY and all(self._names.get(_key(path), ("",))[0] == path for path in beside):
            return Reason("git", "the folder would look like a bare repository")
        return None


def _split(path: str) -> tuple[str, str]:
    above, _, name = path.rpartition("/")
    return above, name


def _key(path: str) -> str:
    return "/".join(map(folded, path.split("/")))


class Refusals:
    """The record of what was refused, bounded; ``rows`` ends with a count of what did not fit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: list[Refusal] = []
        self._more = 0

    def add(self, path: str, reason: Reason) -> None:
        if len(self._rows) < self._limit:
            self._rows.append(Refusal(shown(path), reason.rule, reason.detail))
        else:
            self._more += 1

    def rows(self) -> tuple[Refusal, ...]:
        last = (Refusal("", "more", f"{self._more} further refusals are not listed"),) if self._more else ()
        return (*self._rows, *last)


def shown(path: str, width: int = 200) -> str:
    """A stranger's text as printable UTF-8 on one line, cut to ``width``."""
    text = "".join(char if char.isprintable() and char not in BIDI else _escape(char) for char in path[: width + 1])
    return text if len(text) <= width else text[: width - 1] + "…"


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
