"""Rows out of plain text and spans: no span is cut, no token lost, little room left empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.domain.errors import UserError
from workbench.tokens.packing import RowPacker

PAD = 0
SPAN = 1 << 20  # added to the ids of spans, so that a row can be taken apart again

Batches = Sequence[tuple[int, Sequence[int]]]  # by batch: tokens of plain text, and the length of each span


def pack(batches: Batches, context: int) -> tuple[list[list[int]], list[int], Counter[tuple[int, ...]]]:
    """The rows, the plain text and the spans that went in. Every token is another one."""
    packer, rows = RowPacker(context, PAD), []
    number = 1
    text: list[int] = []
    given: Counter[tuple[int, ...]] = Counter()
    for num_plain, lengths in batches:
        plain = [*range(number, number + num_plain)]
        number += num_plain
        spans = []
        for length in lengths:
            spans.append([SPAN + id for id in range(number, number + length)])
            number += length
        rows += packer.add(np.array(plain, np.uint32), [np.array(span, np.uint32) for span in spans])
        text += plain
        given.update(map(tuple, spans))
    rows += packer.finish()
    return [row.tolist() for row in rows], text, given


def parts(row: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Plain text, spans and padding, which stand in this order."""
    num_plain = sum(id != PAD and id < SPAN for id in row)
    num_pad = row.count(PAD)
    plain, spans, pad = row[:num_plain], row[num_plain : len(row) - num_pad], row[len(row) - num_pad :]
    assert all(0 < id < SPAN for id in plain)
    assert all(id > SPAN for id in spans)
    assert pad == [PAD] * num_pad
    return plain, spans, pad


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, Batches]:
    context = draw(st.integers(1, 40))
    lengths = st.lists(st.integers(1, context), max_size=15)
    return context, draw(st.lists(st.tuples(st.integers(0, 120), lengths), max_size=6))


@given(batches())
def test_no_span_is_cut_and_no_token_is_lost(case: tuple[int, Batches]) -> None:
    context, given_batches = case
    rows, text, given = pack(given_batches, context)
    assert all(len(row) == context for row in rows)
    found = [parts(row) for row in rows]
    assert [id for plain, _, _ in found for id in plain] == text, "the beginnings of the rows are the plain text"
    for _, ids, _ in found:
        while ids:
            span = next(span for span in given if ids[: len(span)] == list(span))
            given[span] -= 1
            ids = ids[len(span) :]
    assert not +given


@given(batches())
def test_it_depends_on_what_is_added_alone(case: tuple[int, Batches]) -> None:
    context, given_batches = case
    assert pack(given_batches, context) == pack(given_batches, context)


@pytest.mark.parametrize("longest", [100, 64, 52, 40])
def test_with_as_much_plain_text_hardly_a_token_of_a_row_is_left_empty(longest: int) -> None:
    draw = np.random.Generator(np.random.Philox(1))
    lengths = draw.integers(longest // 2, longest, size=2000, endpoint=True).tolist()
    rows, _, _ = pack([(sum(lengths), lengths)], 100)
    assert sum(row.count(PAD) for row in rows) < 0.05 * 100 * len(rows)


def test_what_would_leave_a_row_half_empty_waits_for_what_comes() -> None:
    packer = RowPacker(10, PAD)
    assert [*packer.add(np.arange(1, 3), [np.full(5, SPAN)])] == []
    (row,) = packer.add(np.arange(3, 3), [np.full(4, SPAN + 1)])
    assert row.tolist() == [SPAN] * 5 + [SPAN + 1] * 4 + [PAD]
    assert [row.tolist() for row in packer.finish()] == [[1, 2, *[PAD] * 8]]


def test_a_span_longer_than_a_row_is_refused() -> None:
    with pytest.raises(UserError, match="does not fit a row of 10"):
        list(RowPacker(10, PAD).add(np.arange(0), [np.arange(11)]))
