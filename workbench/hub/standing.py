"""Whether a resident process of the hub still is what it was started as.

A hub's folder may be moved, or removed and made anew, while its processes live: their working directory moves along,
the path that they were given does not, and would lead them to another hub. And the package may be upgraded under
them: then they hold half of the old code and would import half of the new. In both cases they end, and whoever needs
them next starts them again. Not here: who asks, and when.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_Identity = tuple[int, int, int]  # device, inode, time of the last change
_Found = dict[str, _Identity | None]


@dataclass(frozen=True, eq=False)
class Standing:
    """What a process found when it began: its hub's folder, and the files that its code was read from."""

    folder: Path
    _opened: int | None  # the folder itself: while it is open, no other one has its identity
    _code: Mapping[str, _Identity | None]
    _packages: _Found = field(default_factory=dict)  # the folders of those files, when the files were looked at

    @classmethod
    def now(cls, folder: Path) -> Standing:
        files = {
            file
            for name, module in list(sys.modules.items())
            if name.partition(".")[0] == __name__.partition(".")[0]
            if (file := getattr(module, "__file__", None))
        }
        packages = _found({os.path.dirname(file) for file in files})
        standing = cls(folder, _open(folder), _found(files), packages)
        if standing._opened is not None:
            weakref.finalize(standing, os.close, standing._opened)
        return standing

    def holds(self) -> bool:
        """Asked at every push, so it looks at the folders of the code alone: installers and git replace files there and
        never write into them. ``holds_to_the_letter`` sees that too."""
        if not self.is_in_place():
            return False
        packages = _found(self._packages)
        if packages == self._packages:
            return True
        if not self.holds_to_the_letter():
            return False
        self._packages.update(packages)  # something else came or went there, a folder of compiled code for one
        return True

    def holds_to_the_letter(self) -> bool:
        """The same by a look at every file: for quiet moments."""
        return self.is_in_place() and _found(self._code) == self._code

    def is_in_place(self) -> bool:
        """Whether the folder that now has our path is the one in which we began."""
        try:
            return self._opened is not None and os.path.samestat(os.fstat(self._opened), os.stat(self.folder))
        except OSError:
            return False


def _open(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _found(paths: Iterable[str]) -> _Found:
    return {path: _identity(path) for path in paths}


def _identity(path: str) -> _Identity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns
