"""Sizes as people write them."""

from __future__ import annotations

import pytest

from workbench.cli.workspace import parse_size
from workbench.domain.errors import UserError


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("1K", 1024), ("10G", 10 << 30), ("10GB", 10 << 30), ("2GiB", 2 << 30), ("5m", 5 << 20), ("0", 0)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "1.5G", "-1", "10X", "ten"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="not a size"):
        parse_size(text)
