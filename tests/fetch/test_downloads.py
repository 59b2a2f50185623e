"""Kept archives: what a killed download left goes with the next one, what is still written stays."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.fetch.downloads import Downloads


def test_what_a_killed_download_left_is_swept_and_nothing_that_is_written(tmp_path: Path) -> None:
    left, young, written = (tmp_path / f".partial-{name}" for name in ("left", "young", "written"))
    for path in (left, young, written):
        path.write_bytes(b"half")
    for path in (left, written):
        os.utime(path, (0, 0))
    with written.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        path, sha256 = Downloads(tmp_path).put([b"an ", b"archive"])
    assert sorted(tmp_path.iterdir()) == sorted([young, written, path])
    assert Downloads(tmp_path).get(sha256) == path


def test_a_download_is_locked_while_it_lasts_and_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"some"
        (partial,) = tmp_path.glob(".partial-*")
        with partial.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Downloads(tmp_path).put(chunks())
    assert list(tmp_path.iterdir()) == []
