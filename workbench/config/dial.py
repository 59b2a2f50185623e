"""The dial: one size that sets the rest. What a stage's row of sizes is at a step of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from workbench.domain.errors import UserError

T = TypeVar("T")
LARGEST = 5


def check_dial(dial: int) -> int:
    """UserError for a step that the dial does not have: none is quietly taken for another."""
    if not 0 <= dial <= LARGEST:
        raise UserError(
            f"the dial is {dial}", f"it goes from 0 (a first try) over 2 (the demonstration) to {LARGEST} (the largest)"
        )
    return dial


def at_dial(dial: int, rows: Sequence[T]) -> T:
    """The row of a stage's table; a table has a row for every step."""
    assert len(rows) == LARGEST + 1
    return rows[check_dial(dial)]
