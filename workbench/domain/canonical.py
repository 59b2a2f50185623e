"""Canonical JSON: one value, one spelling, so that a digest of it means something.

Keys sorted, no blanks, UTF-8, ``NaN`` and infinities refused. Floats are allowed and written by ``repr``'s shortest
round-trip rule, which is the same on every CPython.
"""

from __future__ import annotations

import json
from typing import Any

from workbench.domain.ids import Digest, sha256


def canonical_json(value: Any) -> bytes:
    """Encode ``value`` canonically, with no newline at the end."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def canonical_lines(value: Any) -> bytes:
    """Encode ``value`` canonically but indented, with a final newline: for files that people also read."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def digest_of(value: Any) -> Digest:
    return sha256(canonical_json(value))
