"""Identifiers as types: a Git object id, a sha256 digest, a ULID. Not here: names of refs (see ``refs``)."""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from workbench.domain.errors import UserError

ObjectId = NewType("ObjectId", str)  # 40 lower-case hex digits: a Git SHA-1 object
Digest = NewType("Digest", str)  # 64 lower-case hex digits: a sha256
Ulid = NewType("Ulid", str)  # 26 Crockford base32 characters, sortable by creation time

ZERO_ID = ObjectId("0" * 40)  # what Git writes for "does not exist"
EMPTY_TREE = ObjectId("4b825dc642cb6eb9a060e54bf8d69288fbee4904")

_OBJECT_ID = re.compile(r"[0-9a-f]{40}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def object_id(text: str) -> ObjectId:
    """Check that ``text`` is a full lower-case SHA-1 object id."""
    if not _OBJECT_ID.match(text):
        raise UserError(f"not an object id: {text!r}", "an object id is 40 lower-case hexadecimal digits")
    return ObjectId(text)


def digest(text: str) -> Digest:
    """Check that ``text`` is a lower-case sha256."""
    if not _DIGEST.match(text):
        raise UserError(f"not a sha256 digest: {text!r}", "a digest is 64 lower-case hexadecimal digits")
    return Digest(text)


def ulid(text: str) -> Ulid:
    """Check that ``text`` is a ULID (the ULID specification)."""
    if not _ULID.match(text):
        raise UserError(
            f"not a run id: {text!r}", "a run id is a ULID: 26 characters of 0-9 and A-Z without I, L, O, U"
        )
    return Ulid(text)


def make_ulid(time_ms: int, randomness: bytes) -> Ulid:
    """Build a ULID of 48 bits of Unix time in milliseconds and 80 bits (10 bytes) of randomness."""
    assert len(randomness) == 10
    assert 0 <= time_ms < 1 << 48
    number = time_ms << 80 | int.from_bytes(randomness, "big")
    return Ulid("".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5)))


def ulid_time_ms(id: Ulid) -> int:
    """The Unix time in milliseconds that a ULID begins with."""
    number = 0
    for character in id[:10]:
        number = number << 5 | _CROCKFORD.index(character)
    return number


def sha256(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())
