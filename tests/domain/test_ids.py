"""Identifiers: a ULID says when it was made, and sorts by that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workbench.domain.ids import make_ulid, ulid, ulid_time_ms

TIMES = st.integers(0, 2**48 - 1)


@given(TIMES, st.binary(min_size=10, max_size=10))
def test_a_ulid_says_when_it_was_made(time_ms: int, randomness: bytes) -> None:
    assert ulid_time_ms(ulid(make_ulid(time_ms, randomness))) == time_ms


@given(TIMES, TIMES, st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_ulids_sort_by_time(one: int, other: int, a: bytes, b: bytes) -> None:
    assert (make_ulid(one, a) < make_ulid(other, b)) == (one < other) or one == other
