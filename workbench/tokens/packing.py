"""Rows of the model's context out of plain text and fill-in-the-middle spans.

Each row is trained by itself, so a span that went over a row's end would be learnt without its prefix: a span stands
whole in one row. Plain text may be cut: it fills what the spans leave, at the beginning of the row, and goes on at the
beginning of the next. What is left where there is no plain text, or too little room for a piece worth learning, is
``<pad>``, at the row's end::

    plain text (cut)  …  | <s> span </s> | <s> span </s> | <pad>
    plain text goes on … | <s> span </s> |

So the plain text is the beginnings of the rows, one after the other, and nothing is lost.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.domain.errors import UserError

Row = npt.NDArray[Any]

_WORTH = 8  # an eighth of a row: a shorter piece of plain text is not begun


class RowPacker:
    """Best fit, longest spans first (Johnson 1974), so that few tokens of a row stay empty. Depends on what is added
    and on nothing else; holds the plain text of less than a row and the spans of one row between two calls."""

    def __init__(self, context: int, pad: int) -> None:
        self._context, self._pad = context, pad
        self._plain: deque[Row] = deque()
        self._num_plain = 0
        self._spans: list[tuple[int, int, Row]] = []  # by length, then by when they came
        self._num_spans = 0

    def add(self, plain: Row, spans: Iterable[Row] = ()) -> Iterator[Row]:
        """The rows that are full once this has been added, each [context]."""
        self._plain.append(plain)
        self._num_plain += len(plain)
        for span in spans:
            if len(span) > self._context:
                raise UserError(f"a span of {len(span)} tokens does not fit a row of {self._context}", "cut it before")
            insort(self._spans, (len(span), self._num_spans, span), key=lambda entry: entry[:2])
            self._num_spans += 1
        while self._spans:
            chosen = self._choose()
            room = self._context - sum(map(len, chosen))
            if not self._spans and room >= self._smallest and self._num_plain < room:
                for span in chosen:  # more may come: they wait
                    insort(self._spans, (len(span), self._num_spans, span), key=lambda entry: entry[:2])
                    self._num_spans += 1
                break
            yield self._row(chosen, room)
        while self._num_plain >= self._context:
            yield self._take(self._context)

    def finish(self) -> Iterator[Row]:
        """The last rows, filled up with ``<pad>``."""
        while self._spans:
            chosen = self._choose()
            yield self._row(chosen, self._context - sum(map(len, chosen)))
        if self._num_plain:
            yield self._filled([self._take(min(self._num_plain, self._context))])

    @property
    def _smallest(self) -> int:
        return -(-self._context // _WORTH)

    def _choose(self) -> list[Row]:
        """The spans of a row: the longest one, then always the longest that still fits."""
        chosen: list[Row] = []
        room = self._context
        while place := bisect_right(self._spans, room, key=lambda entry: entry[0]):
            length, _, span = self._spans.pop(place - 1)
            chosen.append(span)
            room -= length
        return chosen

    def _row(self, spans: list[Row], room: int) -> Row:
        plain = [self._take(min(room, self._num_plain))] if room >= self._smallest else []
        return self._filled([*plain, *spans])

    def _filled(self, parts: list[Row]) -> Row:
        row = np.full(self._context, self._pad, np.uint32)
        end = 0
        for part in parts:
            row[end : end + len(part)] = part
            end += len(part)
        return row

    def _take(self, count: int) -> Row:
        taken: list[Row] = []
        self._num_plain -= count
        while count:
            first = self._plain.popleft()
            if len(first) > count:
                self._plain.appendleft(first[count:])
                first = first[:count]
            taken.append(first)
            count -= len(first)
        return np.concatenate(taken) if taken else np.empty(0, np.uint32)
