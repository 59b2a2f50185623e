"""What a pushed tree may look like: names, modes, sizes and bounds. Pure: objects are read through a callable.

Git's own fsck passes half of the known hostile trees, so every tree that is new to the hub is walked once, iteratively
and with a memo, before its refs may move. Not here: which refs may move (see ``push``), and reading objects.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass

from workbench.domain import attributes
from workbench.domain.ids import ObjectId


@dataclass(frozen=True)
class TreeLimits:
    depth: int = 64  # of folders
    entries: int = 20_000  # in one folder
    paths: int = 1_000_000  # of the whole tree, shared folders counted as often as they appear
    name_bytes: int = 255
    blob_bytes: int | None = 8 << 20  # None: not checked (a payload, whose files the manifest lists)
    attributes_bytes: int = 64 << 10
    tree_bytes: int = 6 << 20  # of one tree object, before it is parsed


@dataclass(frozen=True)
class RawEntry:
    """An entry as it stands in the tree object, before anything about it is believed."""

    mode: bytes
    name: bytes
    id: ObjectId


@dataclass(frozen=True)
class Problem:
    """One thing that a tree may not hold: a short word, the path, and what to do about it."""

    rule: str
    what: str
    fix: str

    @property
    def line(self) -> str:
        return f"{self.what}: {self.fix} ({self.rule})"


@dataclass(frozen=True)
class Measure:
    """What is remembered of a clean tree: how many paths it expands to, and how deep."""

    paths: int
    height: int


class BadTree(Exception):
    """A walk met a problem; nothing after it was looked at."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.line)
        self.problem = problem


FILE_MODES = (b"100644", b"100755")
FOLDER_MODE = b"40000"
_MODE_NAMES = {
    b"120000": ("symlink", "a symbolic link", "commit the file itself"),
    b"160000": ("gitlink", "a submodule", "commit its files, or crawl it as a source"),
}
_PLAIN = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9_+@=,()!-]*(?:\.[A-Za-z0-9_+@=,()!-]+)*\Z")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)\Z", re.IGNORECASE)
_SHORT_GIT = re.compile(r"\.?gi[a-z0-9]{0,6}~[0-9]+\Z", re.IGNORECASE)
_FORBIDDEN = frozenset('\\:*?"<>|')
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def shown(name: bytes | str) -> str:
    """A name for a person's terminal: ASCII, escaped, at most 60 characters."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    safe = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode("ascii") for c in text)
    return safe if len(safe) <= 60 else safe[:40] + "..." + safe[-17:]


def parse_tree(data: bytes, limit: int) -> list[RawEntry]:
    """The entries of a tree object; ValueError when it is not one, stops one entry after ``limit``."""
    entries: list[RawEntry] = []
    at, end = 0, len(data)
    while at < end and len(entries) <= limit:
        space = data.find(b" ", at, at + 8)
        zero = data.find(b"\0", at)
        if space < 0 or zero < space or zero + 21 > end:
            raise ValueError("tree object is cut off or malformed")
        entries.append(RawEntry(data[at:space], data[space + 1 : zero], ObjectId(data[zero + 1 : zero + 21].hex())))
        at = zero + 21
    return entries


def judge_name(name: bytes, limits: TreeLimits) -> tuple[str, str] | None:
    """(rule, what to do) when a single path component may not be committed, else None."""
    if len(name) > limits.name_bytes:
        return "name-length", f"rename it: {len(name)} bytes, {limits.name_bytes} are allowed"
    if _PLAIN.match(name):
        text = name.decode("ascii")
        return _judge_reserved(text)
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return "utf-8", "rename it: names are UTF-8"
    if not text or text in (".", "..") or "/" in text:
        return "traversal", "this tree was not made by git; make it again with `git add`"
    if any(unicodedata.category(c) in _INVISIBLE for c in text):
        return "control-character", "rename it without control, direction or invisible characters"
    if unicodedata.normalize("NFC", text) != text:
        return "unicode-form", "rename it in Unicode form NFC (core.precomposeUnicode=true)"
    if _FORBIDDEN & set(text):
        return "character", r"rename it without any of \ : * ? " + '" < > |'
    if "`" in text or "$(" in text:
        return "shell", "rename it: a careless script would run it"
    if text.startswith("-"):
        return "leading-dash", "rename it: programs read a leading '-' as an option"
    if text.startswith(" ") or text.endswith((" ", ".")):
        return "edge", "rename it: no leading blank, no blank or dot at the end"
    return _judge_reserved(text)


def _judge_reserved(text: str) -> tuple[str, str] | None:
    folded = text.casefold()
    if folded == ".git" or _SHORT_GIT.match(folded):
        return "git-name", "remove it: the name means Git's own folder on some file systems"
    if folded == ".gitmodules":
        return "submodule", "remove it: submodules are not used here; crawl the source instead"
    if _DEVICE.match(folded.split(".", 1)[0].rstrip()):
        return "device-name", "rename it: Windows reserves this name"
    return None


def judge_entries(entries: Sequence[RawEntry], path: str, limits: TreeLimits) -> Problem | None:
    """The first problem of one tree's entries, without looking into them."""
    where = shown(path) or "the top folder"
    if len(entries) > limits.entries:
        return Problem("entries", f"{where} has more than {limits.entries} entries", "spread them over folders")
    seen: dict[str, bytes] = {}
    last = b""
    for entry in entries:
        full = shown(f"{path}/" if path else "") + shown(entry.name)
        if entry.mode != FOLDER_MODE and entry.mode not in FILE_MODES:
            rule, what, fix = _MODE_NAMES.get(
                entry.mode, ("mode", f"mode {shown(entry.mode)}", "commit it as 100644 or 100755")
            )
            return Problem(rule, f"{full} is {what}" if rule != "mode" else f"{full} has {what}", fix)
        verdict = judge_name(entry.name, limits)
        if verdict:
            return Problem(verdict[0], full, verdict[1])
        key = entry.name.decode().casefold()
        if key in seen:
            return Problem(
                "case-collision",
                f"{full} and {shown(seen[key])} are one name where case does not count",
                "rename one of them",
            )
        seen[key] = entry.name
        order = entry.name + b"/" if entry.mode == FOLDER_MODE else entry.name
        if order <= last:
            return Problem("order", f"{where} is not sorted", "make the tree again with git")
        last = order
    if {b"HEAD", b"objects", b"refs"} <= {entry.name for entry in entries}:
        return Problem(
            "embedded-repository", f"{where} looks like a bare repository", "remove it, or push it elsewhere"
        )
    return None


def judge_attributes(data: bytes, path: str) -> Problem | None:
    """``.gitattributes`` may not name a filter, diff or merge driver: those run the reader's programs."""
    word = attributes.driver(data)
    if not word:
        return None
    return Problem(
        "driver", f"{shown(path)} sets {shown(word)}", "remove it: drivers run programs on the reader's machine"
    )


Header = Callable[[ObjectId], tuple[str, int] | None]  # (kind, size in bytes)


@dataclass
class _Frame:
    id: ObjectId
    path: str
    folders: list[RawEntry]
    paths: int
    height: int = 1


class TreeWalk:
    """Walks trees that are not yet known to be clean; ``clean`` remembers those that are (and may be kept)."""

    def __init__(
        self,
        *,
        header: Header,
        read: Callable[[ObjectId], bytes],
        clean: MutableMapping[ObjectId, Measure],
        limits: TreeLimits = TreeLimits(),
    ) -> None:
        self._header = header
        self._read = read
        self._clean = clean
        self._limits = limits

    def check(self, root: ObjectId) -> Measure:
        """Measure of a clean tree; BadTree names the first problem."""
        known = self._clean.get(root)
        if known is not None:
            return known
        stack = [self._open(root, "")]
        while True:
            frame = stack[-1]
            if frame.folders:
                entry = frame.folders.pop()
                path = f"{frame.path}/{entry.name.decode()}" if frame.path else entry.name.decode()
                known = self._clean.get(entry.id)
                if known is None:
                    self._bound_depth(len(stack) + 1, path)
                    stack.append(self._open(entry.id, path))
                    continue
                self._bound_depth(len(stack) + known.height, path)
                self._close_into(frame, known)
                continue
            measure = Measure(frame.paths, frame.height)
            self._clean[frame.id] = measure
            stack.pop()
            if not stack:
                return measure
            self._close_into(stack[-1], measure)

    def _close_into(self, parent: _Frame, child: Measure) -> None:
        parent.paths += child.paths
        parent.height = max(parent.height, child.height + 1)
        if parent.paths > self._limits.paths:
            raise BadTree(
                Problem(
                    "paths",
                    f"{shown(parent.path) or 'the tree'} expands to more than {self._limits.paths:,} paths",
                    "push fewer files; a data set belongs in an artifact",
                )
            )

    def _bound_depth(self, depth: int, path: str) -> None:
        if depth > self._limits.depth:
            raise BadTree(
                Problem("depth", f"{shown(path)} is deeper than {self._limits.depth} folders", "flatten the folders")
            )

    def _open(self, id: ObjectId, path: str) -> _Frame:
        found = self._header(id)
        if found is None or found[0] != "tree":
            kind = "missing" if found is None else f"a {found[0]}"
            raise BadTree(Problem("kind", f"{shown(path) or 'the top folder'} is {kind}, not a tree", "push it again"))
        if found[1] > self._limits.tree_bytes:
            raise BadTree(
                Problem(
                    "entries",
                    f"{shown(path) or 'the top folder'} has more than {self._limits.entries} entries",
                    "spread them over folders",
                )
            )
        try:
            entries = parse_tree(self._read(id), self._limits.entries)
        except ValueError as error:
            raise BadTree(
                Problem("kind", f"{shown(path) or 'the top folder'} cannot be read", "make the tree again with git")
            ) from error
        problem = judge_entries(entries, path, self._limits)
        if problem:
            raise BadTree(problem)
        for entry in entries:
            if entry.mode != FOLDER_MODE:
                self._judge_blob(entry, path)
        return _Frame(id, path, [entry for entry in entries if entry.mode == FOLDER_MODE], len(entries))

    def _judge_blob(self, entry: RawEntry, path: str) -> None:
        full = f"{path}/{entry.name.decode()}" if path else entry.name.decode()
        found = self._header(entry.id)
        if found is None or found[0] != "blob":
            kind = "missing" if found is None else f"a {found[0]}"
            raise BadTree(Problem("kind", f"{shown(full)} is {kind}, not a file", "push it again"))
        if self._limits.blob_bytes is not None and found[1] > self._limits.blob_bytes:
            raise BadTree(
                Problem(
                    "size",
                    f"{shown(full)} is {found[1] / 2**20:.1f} MiB, {self._limits.blob_bytes >> 20} MiB are allowed",
                    "make it an artifact: `workbench import FILE`",
                )
            )
        if entry.name.lower() == b".gitattributes":
            if found[1] > self._limits.attributes_bytes:
                raise BadTree(Problem("size", f"{shown(full)} is over 64 KiB", "shorten it"))
            problem = judge_attributes(self._read(entry.id), full)
            if problem:
                raise BadTree(problem)
