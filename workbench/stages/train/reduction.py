r"""Sums whose bits do not depend on how many processes share the work: a fixed tree over the step's micro-batches.

Addition of floats is commutative but not associative, so the tree, not the order of arrival, decides the bits::

    micro-batches   0   1   2   3   4   5   6   7        one rank: all of it
                     \ /     \ /     \ /     \ /         two ranks: 0-3 and 4-7, then one exchange
                       \     /         \     /           four ranks: 0-1, 2-3, …, then two exchanges
                         ---------------
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Link(Protocol):
    """The processes that train together."""

    @property
    def rank(self) -> int: ...
    @property
    def ranks(self) -> int: ...
    def exchange(self, mine: Tensor, other: int) -> Tensor:
        """Give ``mine`` to rank ``other`` and take theirs."""
        ...


class Alone:
    """One process."""

    rank = 0
    ranks = 1

    def exchange(self, mine: Tensor, other: int) -> Tensor:
        raise AssertionError("there is nobody to exchange with")


class PairwiseSum:
    """Adds 2^k leaves in the tree above while they come, holding at most k + 1 tensors."""

    def __init__(self) -> None:
        self._waiting: dict[int, Tensor] = {}  # by height in the tree

    def add(self, leaf: Tensor) -> None:
        height = 0
        while height in self._waiting:
            leaf = self._waiting.pop(height) + leaf
            height += 1
        self._waiting[height] = leaf

    def total(self) -> Tensor:
        assert len(self._waiting) == 1, "the number of leaves is not a power of two"
        return next(iter(self._waiting.values()))


def share(micro_batches: int, link: Link) -> range:
    """The micro-batches of this rank: a whole subtree."""
    each = micro_batches // link.ranks
    assert each * link.ranks == micro_batches
    return range(link.rank * each, (link.rank + 1) * each)


def reduce(mine: Tensor, link: Link) -> Tensor:
    """The sum over all ranks, the same bits on each (recursive doubling)."""
    distance = 1
    while distance < link.ranks:
        mine = mine + link.exchange(mine, link.rank ^ distance)
        distance *= 2
    return mine
