"""An archive on disk as a fetched source: unpacked, its one top folder taken off, its digest as provenance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workbench.fetch.extractor import extract
from workbench.fetch.limits import Limits
from workbench.ports.fetch import Fetched, Refusal, Source

TOP = ".top"  # beside the folder, not in it


def unpack(source: Source, archive: Path, sha256: str, into: Path, *, wanted: Sequence[str], limits: Limits) -> Fetched:
    done = extract(archive, into, wanted=wanted, limits=limits)
    files, refusals = _without_top(into, done.files, done.refusals)
    return Fetched(source, files, refusals, {"sha256": sha256, "size": archive.stat().st_size})


def _without_top(
    into: Path, files: Sequence[str], refusals: Sequence[Refusal]
) -> tuple[tuple[str, ...], tuple[Refusal, ...]]:
    """Source archives hold one folder, ``<name>-<version>``; its content moves up. Others stay as they are."""
    tops = {path.partition("/")[0] for path in files}
    if len(tops) != 1 or not all("/" in path for path in files):
        return tuple(files), tuple(refusals)
    top = tops.pop()
    aside = into.with_name(into.name + TOP)
    (into / top).rename(aside)
    for child in into.iterdir():  # empty folders of files that were refused
        child.rmdir()
    into.rmdir()
    aside.rename(into)
    return (
        tuple(path.partition("/")[2] for path in files),
        tuple(Refusal(refusal.path.removeprefix(top + "/"), refusal.rule, refusal.detail) for refusal in refusals),
    )
