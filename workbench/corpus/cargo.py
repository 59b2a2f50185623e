"""A crate's ``Cargo.toml`` as cargo reads it, for what it says of licence and edition. Bounded: strangers wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.domain.reading import BadInput, Limits, parse_toml

LIMITS = Limits(size_bytes=1 << 20)
_MARK = b"\xef\xbb\xbf"  # cargo reads a file that begins with a byte order mark


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Its tables; empty where there is no such file, None for one that cannot be read."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        data = file.read(LIMITS.size_bytes + 1).removeprefix(_MARK)
    try:
        return parse_toml(data.decode("utf-8", "replace").encode(), LIMITS, plain=False)
    except BadInput:
        return None
