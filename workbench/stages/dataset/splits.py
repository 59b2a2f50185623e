"""Which split a document belongs to: its own choice, by its hash. Pure.

A document never changes its split because others come or go; it does only when the seed or the shares change. What
stays in validation and test when their shares grow is what was there before.
"""

from __future__ import annotations

import hashlib


def split_of(id: str, *, seed: int, validation: float, test: float) -> str:
    """``train``, ``validation`` or ``test`` for the document with this id (the sha256 of its text)."""
    digest = hashlib.sha256(f"split:{seed}:{id}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    if point < test:
        return "test"
    # Counted down from the top, so that a larger test share takes from train alone.
    return "validation" if point >= 1.0 - validation else "train"
