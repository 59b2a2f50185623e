"""Our own unpacking of strangers' archives: wanted regular files only, within bounds, each refusal recorded.

The standard library's extraction filter can be escaped on the Python we run on. A bad member is left out and recorded;
an archive that is bad as a whole (bomb, broken, too many members) leaves nothing
behind but the refusal that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from workbench.fetch import names, tar_reader, zip_reader
from workbench.fetch.decompress import Stop, Unpacked
from workbench.fetch.limits import LIMITS, Limits
from workbench.fetch.names import Reason, Refusals, Taken
from workbench.fetch.tar_reader import Member
from workbench.fetch.writing import FolderWriter
from workbench.ports.fetch import Refusal


@dataclass(frozen=True)
class Extraction:
    files: tuple[str, ...]  # sorted
    refusals: tuple[Refusal, ...]
    whole: bool  # False: the archive was refused as a whole, and there are no files


def extract(archive: Path, into: Path, *, wanted: Sequence[str], limits: Limits = LIMITS) -> Extraction:
    """Unpack a tar (plain, gzip, bzip2, xz, zstd where Python has it) or zip into the empty folder ``into``."""
    refusals = Refusals(limits.refusals)
    with archive.open("rb") as source, FolderWriter(into) as writer:
        try:
            files = _take(_members(source, limits), writer, refusals, wanted, limits)
        except Stop as stop:
            writer.forget()
            return Extraction((), (*refusals.rows(), Refusal("", stop.rule, stop.detail)), False)
    return Extraction(tuple(sorted(files)), refusals.rows(), True)


def _members(source: BinaryIO, limits: Limits) -> Iterator[tuple[Member, Iterator[bytes]]]:
    magic = source.read(4)
    source.seek(0)
    if magic in (b"PK\3\4", b"PK\5\6"):
        return zip_reader.members(source, limits)
    return tar_reader.members(Unpacked(source, limits), limits)


def _take(
    members: Iterator[tuple[Member, Iterator[bytes]]],
    writer: FolderWriter,
    refusals: Refusals,
    wanted: Sequence[str],
    limits: Limits,
) -> list[str]:
    files: list[str] = []
    taken = Taken()
    kept_bytes = 0
    for count, (member, content) in enumerate(members, 1):
        if count > limits.members:
            raise Stop("count", f"more than {limits.members} members")
        path = member.path.removeprefix("./")
        reason = _refuse(member, path, limits)
        if reason is None and member.kind == "file" and names.is_wanted(path, wanted):
            reason = _too_large(member, limits) or taken.claim(path)
            if reason is None:
                kept_bytes += writer.write(path, content)
                files.append(path)
                if kept_bytes > limits.kept_bytes:
                    raise Stop("size", f"more than {limits.kept_bytes} bytes of wanted files")
        if reason is not None:
            refusals.add(path, reason)
    return files


def _refuse(member: Member, path: str, limits: Limits) -> Reason | None:
    if member.kind == "folder":
        path = path.rstrip("/")
        return names.check(path, limits) if path not in ("", ".") else None
    if reason := names.check(path, limits):
        return reason
    if member.kind == "link":
        return Reason("link", f"to {names.shown(member.target)}" if member.target else "")
    return None if member.kind == "file" else Reason(member.kind)


def _too_large(member: Member, limits: Limits) -> Reason | None:
    return Reason("size", f"{member.size} bytes") if member.size > limits.member_bytes else None
