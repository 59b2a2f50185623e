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
    sha256: str  # of the archive (path: of its files); empty for git
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
    """A row of ``kind``; Corrupt where a field is missing, unknown or of another type."""
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if set(raw) != set(fields):
        wrong = ", ".join(sorted(set(raw) ^ set(fields)))
        raise Corrupt(f"{where}: a row has other fields than it should: {wrong}", "it was written by another version")
    types: dict[str, type] = {"str": str, "int": int, "list[str]": list}
    for name, type_name in fields.items():
        value = raw[name]
        if not isinstance(value, types[type_name]) or isinstance(value, bool):
            raise Corrupt(f"{where}: {name} is {value!r}, not {type_name}", "it was written by another version")
    return kind(**raw)


def read(kind: type[R], path: Path) -> list[R]:
    """All rows of a file."""
    if not path.is_file():
        raise Corrupt(f"{path.name} is missing", "give the payload folder of an artifact that this workbench made")
    return [parse(kind, raw, where=path.name) for raw in jsonl.read(path)]
