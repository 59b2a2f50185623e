"""MinHash signatures of source text: shingles of tokens hashed in numpy, signatures by datasketch.

Tokens are the runs of ``[A-Za-z0-9_]``, as in BigCode's near-deduplication; a shingle is five of them in a row. Shingle
hashes are fixed here (polynomials modulo 2^64, mixed by MurmurHash3's finaliser), so signatures never depend on a
process, a machine or an order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

SEED = 42
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
INVERSE = pow(BASE, -1, 1 << 64)
STEP = 0xD6E8FEB86659FD93
BATCH = 2048  # shingles at a time: 256 permutations of them stay in the cache

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]

_WORD = np.zeros(256, dtype=bool)
_WORD[list(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")] = True


def shingles(text: bytes, tokens: int) -> U32:
    """The distinct shingle hashes, sorted; empty where the text has fewer than ``tokens`` tokens."""
    data = np.frombuffer(text, dtype=np.uint8)
    word = np.concatenate(([False], _WORD[data], [False]))
    edges = np.flatnonzero(word[1:] != word[:-1])
    starts, ends = edges[0::2], edges[1::2]
    if len(starts) < tokens:
        return np.empty(0, dtype=np.uint32)
    hashes = _mixed(_token_hashes(data, starts, ends))
    length = len(hashes) - tokens + 1
    combined = np.zeros(length, dtype=np.uint64)
    for index in range(tokens):
        combined = combined * np.uint64(STEP) + hashes[index : index + length]
    distinct: U32 = np.unique((_mixed(combined) >> np.uint64(32)).astype(np.uint32))
    return distinct


def _token_hashes(data: NDArray[np.uint8], starts: NDArray[Any], ends: NDArray[Any]) -> U64:
    """Sum of ``byte * BASE^(index in token)`` for every token at once, from differences of one running sum."""
    powers, inverses = _powers(len(data))
    running = np.zeros(len(data) + 1, dtype=np.uint64)
    np.cumsum((data.astype(np.uint64) + np.uint64(1)) * powers, out=running[1:])
    lengths = (ends - starts).astype(np.uint64)
    sums: U64 = (running[ends] - running[starts]) * inverses[starts] + lengths * np.uint64(STEP)
    return sums


def _powers(count: int) -> tuple[U64, U64]:
    size = max(1 << 16, 1 << (count - 1).bit_length()) if count else 1 << 16
    powers, inverses = _power_table(size)
    return powers[:count], inverses[:count]


@cache
def _power_table(size: int) -> tuple[U64, U64]:
    def table(base: int) -> U64:
        factors = np.full(size, base, dtype=np.uint64)
        factors[0] = 1
        powers: U64 = np.multiply.accumulate(factors)
        return powers

    return table(BASE), table(INVERSE)


def _mixed(values: U64) -> U64:
    """MurmurHash3's 64-bit finaliser."""
    mixed = values ^ (values >> np.uint64(33))
    mixed = mixed * np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(33)
    mixed = mixed * np.uint64(0xC4CEB9FE1A85EC53)
    mixed ^= mixed >> np.uint64(33)
    return mixed


def signature(text: bytes, *, tokens: int, permutations: int) -> bytes:
    """The signature as little-endian 32-bit words; empty for a text too short to have a shingle."""
    hashes = shingles(text, tokens)
    if not len(hashes):
        return b""
    made = new(permutations)
    for start in range(0, len(hashes), BATCH):
        made.update_batch(hashes[start : start + BATCH].tolist())
    words: bytes = made.hashvalues.astype("<u4").tobytes()
    return words


def new(permutations: int, values: U32 | None = None) -> MinHash:
    """An empty MinHash, or one with these values."""
    return MinHash(
        num_perm=permutations,
        seed=SEED,
        hashfunc=_as_it_is,
        scheme="affine32",
        permutations=_permutations(permutations),
        hashvalues=values,
    )


@cache
def _permutations(count: int) -> Any:
    return MinHash(num_perm=count, seed=SEED, hashfunc=_as_it_is, scheme="affine32").permutations


def _as_it_is(value: int) -> int:
    return value
