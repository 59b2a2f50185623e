"""The digest of a stage's code: what could change its output, and nothing that could not.

For a stage of ours: every ``workbench`` module that its package can reach by import, parsed, without docstrings,
comments, formatting and positions. Left out are the frame around it (ports, errors, events, the step's own format),
which decides nothing about the bytes, and adapters, which come through ports; a stage names those that shape its output
in ``StageSpec.adapters``. For a workspace's command: the files of the commit under its code paths, Python ones without
comments, formatting and positions; their docstrings count, for they may be prompts or usage texts.

Not here: libraries and tools (``environment``).
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import workbench
from workbench.domain.canonical import digest_of
from workbench.domain.errors import UserError
from workbench.domain.ids import Digest, ObjectId
from workbench.domain.stage import StageSpec
from workbench.ports.store import Objects

_ADAPTERS = frozenset({"app", "store", "sandbox", "inference", "telemetry", "fetch", "mapping", "clock"})
_INDEX_FORMAT = f"1 {sys.version_info[0]}.{sys.version_info[1]}"  # a syntax tree is that of one Python
_FRAME = frozenset({"workbench", "workbench.domain.errors", "workbench.domain.events", "workbench.domain.stage"})


def code_digest(spec: StageSpec, objects: Objects, commit: ObjectId, parsed: ParsedFiles | None = None) -> Digest:
    """The digest of the code of a stage; for a command, as the commit has it."""
    if spec.command:
        return _command_digest(spec, objects, commit)
    return _package_digest(
        f"workbench.stages.{spec.name}", spec.adapters, Path(workbench.__file__).parent, parsed or ParsedFiles()
    )


def module_digest(module: str) -> Digest:
    """The digest of a module of ours and of every one that it reaches, by the rules for a stage."""
    return _package_digest(module, (), Path(workbench.__file__).parent, ParsedFiles())


def normalised(source: bytes) -> str:
    """The digest of a Python file's syntax tree; of its bytes where it does not parse."""
    try:
        return _tree_digest(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError):
        return hashlib.sha256(source).hexdigest()


def _tree_digest(tree: ast.Module) -> str:
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _documented(node):
            node.body = node.body[1:]
    return tree


def _documented(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def _command_digest(spec: StageSpec, objects: Objects, commit: ObjectId) -> Digest:
    files: dict[str, str] = {}
    for path in spec.code_paths:
        entry = objects.entry(commit, path)
        if entry is None:
            raise UserError(
                f"stage {spec.name}: code path {path!r} is not in {commit[:10]}",
                "commit it, or mend `code` in the pipeline",
            )
        found = objects.walk(commit, path) if entry.mode == 0o40000 else [entry]
        for blob in found:
            name = blob.path if entry.mode != 0o40000 else f"{path}/{blob.path}"
            files[name] = normalised(objects.read_blob(blob.id)) if name.endswith(".py") else blob.id
    _check_named(spec, objects, commit)
    reach = {"needs": spec.needs.reach} if spec.needs.reach else {}
    return digest_of({"command": list(spec.command), "files": files, **reach})


def _check_named(spec: StageSpec, objects: Objects, commit: ObjectId) -> None:
    """A file of the workspace that the command names is code of it: else it would not be there when it runs, and its
    change would be no reason to run."""
    covered = [path.rstrip("/") for path in spec.code_paths]
    for word in spec.command:
        path = word.removeprefix("./")
        if any(path == code or path.startswith(f"{code}/") for code in covered) or not _is_path(path):
            continue
        entry = objects.entry(commit, path)
        if entry is not None and entry.mode != 0o40000:
            raise UserError(
                f"stage {spec.name}: its command names {path}, which is not in its code",
                f'add it where the pipeline names the command: code = ["{path}"]',
            )


def _is_path(word: str) -> bool:
    return all(part not in ("", ".", "..") for part in word.split("/"))


def _package_digest(package: str, adapters: tuple[str, ...], root: Path, parsed: ParsedFiles) -> Digest:
    waiting = [*_modules_below(package, root)]
    for room in adapters:
        waiting.extend(_modules_below(f"workbench.{room}", root))
    seen: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        if module in seen or module in _FRAME or module.endswith(".__main__"):
            continue
        path = _file(module, root)
        assert path is not None, module
        digest, imports = parsed.of(path)
        seen[module] = digest
        waiting.extend(name for name in imports if _followed(name, adapters) and _file(name, root))
    return digest_of(seen)


def _followed(module: str, adapters: tuple[str, ...]) -> bool:
    room = module.split(".")[1] if "." in module else ""
    return room != "ports" and (room not in _ADAPTERS or room in adapters)


def _modules_below(package: str, root: Path) -> Iterator[str]:
    folder = root.joinpath(*package.split(".")[1:])
    if not folder.is_dir():
        yield package
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        yield ".".join([package, *(part for part in parts if part != "__init__")])


@cache
def _file(module: str, root: Path) -> Path | None:
    base = root.joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


class ParsedFiles:
    """What parsing a file gave: its normalised digest and the workbench modules that it names in imports.

    Kept in ``index``, a file beside the repository that may be deleted at any time, because parsing is most of the time
    of a plan. An entry holds only while the file's size, times and inode are those that were seen.
    """

    def __init__(self, index: Path | None = None) -> None:
        self._index = index
        self._known: dict[str, list[Any]] = self._read()
        self._is_new = False

    def of(self, path: Path) -> tuple[str, list[str]]:
        stat = path.stat()
        seen = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        entry = self._known.get(str(path))
        if entry is None or entry[0] != seen:
            tree = ast.parse(path.read_bytes())
            imports = sorted({name for name in _imported(tree) for name in _with_packages(name)})
            entry = self._known[str(path)] = [seen, _tree_digest(_without_docstrings(tree)), imports]
            self._is_new = True
        return entry[1], entry[2]

    def save(self) -> None:
        """Write the index if there is something new; that it cannot be written is no one's loss."""
        if self._index is None or not self._is_new:
            return
        fresh = self._index.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self._index.parent.mkdir(exist_ok=True)
            fresh.write_text(json.dumps({"format": _INDEX_FORMAT, "files": self._known}))
            fresh.replace(self._index)
        self._is_new = False

    def _read(self) -> dict[str, list[Any]]:
        try:
            raw = json.loads(self._index.read_bytes()) if self._index else {}
            known = dict(raw["files"]) if raw.get("format") == _INDEX_FORMAT else {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}
        return {path: entry for path, entry in known.items() if _is_entry(entry)}


def _is_entry(entry: Any) -> bool:
    match entry:
        case [list(), str(), list(names)]:
            return all(isinstance(name, str) for name in names)
    return False


def _imported(tree: ast.Module) -> Iterator[str]:
    """Names as imported; ``from a.b import c`` may mean the module ``a.b.c``, so both are named."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _with_packages(module: str) -> Iterator[str]:
    parts = module.split(".")
    if parts[0] == "workbench":
        yield from (".".join(parts[:length]) for length in range(2, len(parts) + 1))
