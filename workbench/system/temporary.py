"""Temporary folders that do not stay for ever when their owner is killed: whoever makes the next one removes it.

A folder belongs to the process that holds a lock on it, which the kernel lets go of when the process ends. One that
nobody holds and that is older than the moment between making and locking it is swept. Not covered: a machine that is
never used again.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from workbench.system import locks
from workbench.system.trees import remove_tree

YOUNG_S = 600.0
_PREFIX = "workbench-temporary-"  # nobody else's folder is called so, wherever it lies
_OURS = re.compile(_PREFIX + r"[a-z]+-[a-z0-9_]{8}\Z")


@contextlib.contextmanager
def temporary_folder(name: str, *, within: Path | None = None) -> Iterator[Path]:
    """A new private folder ``workbench-temporary-<name>-…``, removed with the block; by default where TMPDIR says."""
    base = within or Path(tempfile.gettempdir())
    _sweep_once(base)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{name}-", dir=base))
    assert _OURS.match(folder.name), name
    held = _hold(folder)
    try:
        yield folder
    finally:
        remove_tree(folder)
        if held is not None:
            os.close(held)


def sweep(base: Path) -> list[Path]:
    """Remove what dead owners left directly in ``base``; what was removed."""
    swept = []
    for folder in sorted(base.glob(f"{_PREFIX}*")):
        if _is_ours(folder, time.time() - YOUNG_S) and (held := _hold(folder)) is not None:
            remove_tree(folder)
            os.close(held)
            if not folder.exists():
                swept.append(folder)
    return swept


@cache
def _sweep_once(base: Path) -> None:
    with contextlib.suppress(OSError):
        sweep(base)


def _is_ours(folder: Path, before_s: float) -> bool:
    """Whether we may remove it: a folder by one of our names, not just made, and by us (root removes anybody's, because
    its sandboxes give theirs away)."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    mine = os.geteuid() in (0, found.st_uid) and _OURS.match(folder.name) is not None
    return mine and stat.S_ISDIR(found.st_mode) and found.st_mtime < before_s


def _hold(folder: Path) -> int | None:
    """A descriptor with the lock; None where another process holds it, or it is gone."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if locks.take(held):
        return held
    os.close(held)
    return None
