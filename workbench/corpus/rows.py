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
from workbench.domain.reading import Shape, checked, items, printed, read_or_tell, record, text, whole

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


def _one_folder(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{printed(name)} is no name of a folder")
    return name


def _inside(path: str) -> str:
    """What is opened by name below a payload: an artifact may come from a stranger."""
    if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise ValueError(f"{printed(path)} is no path below a package")
    return path


_LONG = text(most=1 << 20)
_FOLDER, _PATH = checked(_LONG, _one_folder), checked(_LONG, _inside)
_ROWS: Mapping[type[Any], Shape[Any]] = {
    PackageRow: record(
        PackageRow,
        package=_FOLDER,
        name=_LONG,
        version=_LONG,
        kind=text(),
        license=_LONG,
        sha256=text(),
        size=whole(),
        commit=text(),
        files=whole(),
        license_files=checked(items(_PATH), list),
    ),
    RefusalRow: record(RefusalRow, package=_LONG, path=_LONG, rule=text(), detail=_LONG),
    FileRow: record(
        FileRow,
        path=_PATH,
        package=_FOLDER,
        sha256=text(),
        bytes=whole(),
        lines=whole(),
        license=_LONG,
        compile=text(),
    ),
    RejectionRow: record(RejectionRow, path=_LONG, package=_LONG, rule=text(), detail=_LONG),
}


def parse(kind: type[R], raw: Mapping[str, Any], *, where: str) -> R:
    """A row of ``kind``; Corrupt where a field is missing, unknown or of another type, or a path leaves its folder."""
    row: R = read_or_tell(
        lambda: _ROWS[kind].read(raw, ""), what=where, hint="it was written by another version, or changed"
    )
    return row


def read(kind: type[R], path: Path) -> list[R]:
    """All rows of a file; Corrupt, with the line, where one is not what it should be."""
    return [parse(kind, raw, where=f"{path.name}, line {number}") for number, raw in enumerate(jsonl.read(path), 1)]
