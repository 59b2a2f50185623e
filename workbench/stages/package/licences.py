"""Whose code the model learned from, under which licences: read from the dataset. Not here: judging licences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.domain.errors import StageFailed
from workbench.domain.reading import Limits, anything, load_json, mapping

SPLITS = ("train", "validation", "test")
_NONE = ("", "NOASSERTION", "NONE", "UNKNOWN")


@dataclass(frozen=True)
class PackageShare:
    """One package of the data, and how much of it the dataset holds."""

    name: str
    version: str
    kind: str
    license: str  # SPDX expression
    sha256: str
    commit: str
    documents: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


def read(dataset: Path) -> tuple[PackageShare, ...]:
    """Every package that has a document in the dataset, by name. StageFailed for one without a known licence."""
    documents: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    licences: dict[str, set[str]] = {}
    for split in SPLITS:
        for row in rows(dataset / f"{split}.jsonl"):
            package = str(row["package"])
            documents[package] += 1
            sizes[package] += int(row["bytes"])
            licences.setdefault(package, set()).add(str(row["license"]))
    described = {str(row["package"]): row for row in rows(dataset / "packages.jsonl")}
    return tuple(
        _share(package, described.get(package, {}), licences[package], documents[package], sizes[package])
        for package in sorted(documents)
    )


def expression(shares: Sequence[PackageShare]) -> str:
    """One SPDX expression that covers all packages: each distinct licence, joined by AND."""
    return _all_of({share.license for share in shares})


def by_licence(shares: Sequence[PackageShare]) -> Mapping[str, Mapping[str, int]]:
    """Licence -> packages, documents and bytes."""
    table: dict[str, dict[str, int]] = {}
    for share in shares:
        entry = table.setdefault(share.license, {"packages": 0, "documents": 0, "bytes": 0})
        entry["packages"] += 1
        entry["documents"] += share.documents
        entry["bytes"] += share.bytes
    return dict(sorted(table.items()))


def rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON lines file, one at a time."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            what = f"{path.name} line {number}"
            yield load_json(line, _ROW, what=what, limits=_LIMITS, hint="build the dataset again")


_LIMITS = Limits(size_bytes=64 << 20)
_ROW = mapping(anything())


def _all_of(licences: Set[str]) -> str:
    distinct = sorted(licences)
    return " AND ".join(f"({text})" if " " in text and len(distinct) > 1 else text for text in distinct)


def _share(package: str, row: Mapping[str, Any], licences: Set[str], documents: int, size: int) -> PackageShare:
    """The licences are those of the files that were used; a file that names none has its package's."""
    of_package = str(row.get("license") or "")
    found = {of_package if text.upper() in _NONE else text for text in licences}
    if any(text.upper() in _NONE for text in found):
        raise StageFailed(
            f"package {package} is in the dataset without a licence", "let the filter drop it, or record its licence"
        )
    return PackageShare(
        name=str(row.get("name") or package),
        version=str(row.get("version") or ""),
        kind=str(row.get("kind") or ""),
        license=_all_of(found),
        sha256=str(row.get("sha256") or ""),
        commit=str(row.get("commit") or ""),
        documents=documents,
        bytes=size,
    )
