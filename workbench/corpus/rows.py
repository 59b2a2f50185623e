"""The rows of ``raw`` and ``filtered``, as formats.md has them. Values only.

A ``path`` here is unique: ``<package>/<path in the package>``, below ``packages/`` of raw and ``files/`` of filtered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from workbench.corpus import jsonl
from workbench.domain.errors import Corrupt

R = TypeVar("R")

PACKAGES, REFUSALS, FILES, REJECTIONS = "packages.jsonl", "refusals.jsonl", "files.jsonl", "rejections.jsonl"
PACKAGES_FOLDER, FILES_FOLDER = "packages", "files"


@dataclass(frozen=True)
class PackageRow:
    package: str  # <name>-<version>: the folder below packages/
    name: str
    version: str
    kind: str  # sdist, git, crate, path
    license: str  # as the package declares it; empty: not declared
    sha256: str  # of the archive (path, and a crate whose files had no checksums: of its files); empty for git
    size: int  # bytes of the archive, or of the files where there is none
    commit: str  # git only
    files: int
    license_files: list[str]  # paths in the package


@dataclass(frozen=True)
class RefusalRow:
    package: str
    path: str  # in the package; empty: the source as a whole
    rule: str
    detail: str


@dataclass(frozen=True)
class FileRow:
    path: str
    package: str
    sha256: str
    bytes: int
    lines: int
    license: str  # SPDX expression that was accepted
    compile: str  # "", ok, unresolved, error, timeout


@dataclass(frozen=True)
class RejectionRow:
    path: str
    package: str
    rule: str
    detail: str


def row(value: Any) -> dict[str, Any]:
    """A row value as the object that is written."""
    return dataclasses.asdict(value)


def parse(kind: type[R], raw: Mapping[str, Any], *, where: str) -> R:
    """A row of ``kind``; Corrupt where a field is missing, unknown or of another type, or a path leaves its folder."""
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if set(raw) != set(fields):
        wrong = ", ".join(sorted(set(raw) ^ set(fields)))
        raise Corrupt(f"{where}: a row has other fields than it should: {wrong}", "it was written by another version")
    types: dict[str, type] = {"str": str, "int": int, "list[str]": list}
    for name, type_name in fields.items():
        value = raw[name]
        if not isinstance(value, types[type_name]) or isinstance(value, bool):
            raise Corrupt(f"{where}: {name} is {value!r}, not {type_name}"[:300], "it was written by another version")
        if isinstance(value, list) and not all(isinstance(each, str) for each in value):
            raise Corrupt(f"{where}: {name} holds what is no text", "it was written by another version")
    for path in _paths(kind, raw):
        if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
            raise Corrupt(f"{where}: {path[:200]!r} is no path below a package", "do not use this artifact")
    return kind(**raw)


def _paths(kind: type[Any], raw: Mapping[str, Any]) -> list[str]:
    """What is opened by name below a payload: an artifact may come from a stranger."""
    if kind is PackageRow:
        return [raw["package"].replace("/", "/../"), *raw["license_files"]]
    return [raw["path"], raw["package"].replace("/", "/../")] if kind is FileRow else []


def read(kind: type[R], path: Path) -> list[R]:
    """All rows of a file; Corrupt, with the line, where one is not what it should be."""
    return [parse(kind, raw, where=f"{path.name}, line {number}") for number, raw in enumerate(jsonl.read(path), 1)]
