"""One file, judged by itself: the work that is spread over processes. Values in; the normalised
text into one new file."""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass
from pathlib import Path

from workbench.stages.filter import rules
from workbench.stages.filter.licensing import Policy, Ruling
from workbench.stages.filter.params import FilterParams
from workbench.stages.filter.rules import Drop


@dataclass(frozen=True)
class Task:
    source: Path  # the file in raw
    target: Path  # where its normalised text goes
    path: str  # <package>/<path in the package>
    package: str
    ruling: Ruling

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Verdict:
    path: str
    package: str
    raw_bytes: int
    drop: Drop | None
    sha256: str = ""
    num_bytes: int = 0
    lines: int = 0
    license: str = ""
    rank: int = 0
    signature: bytes = b""
    changed: bool = False


def check(params: FilterParams, task: Task) -> Verdict:
    """The rules in their order; the first that fails is the reason."""
    size = task.source.stat().st_size
    inside = task.path.partition("/")[2]
    drop = rules.folder(inside, params.excluded_folders) or rules.size(size, params.max_bytes)
    if drop:
        return Verdict(task.path, task.package, size, drop)
    data = task.source.read_bytes()
    license, rank, license_drop = _license(data, task.ruling, params)
    drop = (
        rules.encoding(data)
        or license_drop
        or rules.generated(data)
        or rules.minified(data, max_line=params.max_line, max_mean_line=params.max_mean_line)
        or rules.secret(data)
    )
    if drop:
        return Verdict(task.path, task.package, size, drop)
    return _parse(params, task, data, license, rank)


def _license(data: bytes, ruling: Ruling, params: FilterParams) -> tuple[str, int, Drop | None]:
    """A file's own header stands above what holds in its folder."""
    header = rules.license_header(data)
    if not header:
        return ruling.license, ruling.rank, ruling.drop
    license, rank = Policy(params.licenses).judge(header)
    if not license:
        return "", 0, Drop("license", f"not an SPDX expression: {header}"[:200])
    if rank is None:
        return license, 0, Drop("license", f"not allowed: {license}")
    return license, rank, None


def _parse(params: FilterParams, task: Task, data: bytes, license: str, rank: int) -> Verdict:
    from workbench.stages.filter import minhash, syntax
    from workbench.stages.filter.normalise import normalise

    normalised = normalise(data)
    if drop := syntax.broken(normalised):
        return Verdict(task.path, task.package, len(data), drop)
    text = normalised.text
    task.target.write_bytes(text)
    return Verdict(
        path=task.path,
        package=task.package,
        raw_bytes=len(data),
        drop=None,
        sha256=hashlib.sha256(text).hexdigest(),
        num_bytes=len(text),
        lines=text.count(b"\n"),
        license=license,
        rank=rank,
        signature=minhash.signature(text, tokens=params.near_tokens, permutations=params.near_permutations),
        changed=text != data,
    )


def folder_of(path: str) -> str:
    """The folder in the package of ``<package>/<path>``."""
    return posixpath.dirname(path.partition("/")[2])
