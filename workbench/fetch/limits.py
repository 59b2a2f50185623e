"""How much a stranger's archive, tree or download may cost. Values only."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of one source. Whatever passes one is refused, never truncated."""

    member_bytes: int = 4 * MIB  # one file that is kept
    kept_bytes: int = 512 * MIB  # all files that are kept
    total_bytes: int = 1024 * MIB  # all bytes that an archive unpacks to, kept or not
    members: int = 50_000  # entries of an archive
    paths: int = 200_000  # of a Git tree or a folder
    ratio: int = 50  # unpacked bytes for each packed byte, beyond ``ratio_slack_bytes``
    ratio_slack_bytes: int = 16 * MIB
    depth: int = 40  # components of a path
    path_bytes: int = 1024
    header_bytes: int = 64 * 1024  # one extended header of a tar, one path of a zip
    tree_bytes: int = 4 * MIB  # one Git tree object
    download_bytes: int = 256 * MIB
    page_bytes: int = 64 * MIB  # one page of a package index
    refusals: int = 1000  # rows recorded for one source; the rest is counted in a last row
    wall_s: float = 600.0  # one program (git, cargo) that we start


LIMITS = Limits()
