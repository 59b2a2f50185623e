"""Folders with whatever in them, also what a program left that means harm. Not here: what they are for."""

from __future__ import annotations

import contextlib
import os
import stat
from itertools import count
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove a folder that a stage may have left with read-only folders in it, nested however deep; links are not
    followed. What cannot be removed stays."""
    if path.is_symlink() or not path.is_dir():
        return
    fresh = (path / f"removed-{number}" for number in count())
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        for name in _emptied(folder):
            # Moved up before it is emptied in its turn, so that no path grows longer than there may be.
            place = folder / name if folder == path else next(each for each in fresh if not os.path.lexists(each))
            with contextlib.suppress(OSError):
                os.rename(folder / name, place)
                waiting.append(place)
        if folder != path:
            with contextlib.suppress(OSError):
                folder.rmdir()
    with contextlib.suppress(OSError):
        path.rmdir()


def _emptied(folder: Path) -> list[str]:
    """Remove all files of a folder; the names of the folders in it, which may be moved now."""
    folders = []
    with contextlib.suppress(OSError):
        os.chmod(folder, 0o700)
        with os.scandir(folder) as found:
            entries = list(found)
        for entry in entries:
            with contextlib.suppress(OSError):
                if stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
                    os.chmod(entry.path, 0o700)  # what moves has its ".." written
                    folders.append(entry.name)
                else:
                    os.unlink(entry.path)
    return folders
