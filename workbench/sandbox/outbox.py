"""What a job left in its folder on disk, copied as data: bytes of plain files and names, and nothing else of it.

The job may still run, and change what is there between any two looks. So every name is opened relative to the folder
that holds it, never through a link, and what counts is what was opened. What is made anew has neither the owner, mode,
times, attributes nor links of what the job made. Not here: what the names and bytes mean.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from workbench.domain.errors import Refused
from workbench.ports.sandbox import Limits

MAX_DEPTH = 48  # folders in folders, below what is taken
PIECE_BYTES = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass
class DiskOutbox:
    """``folder`` is the job's /out, a real folder of ours that the job can write in. Adapter of ``ports.Outbox``."""

    folder: Path
    limits: Limits

    def take(self, path: str, into: Path) -> None:
        *above, name = path.split("/")
        with contextlib.ExitStack() as opened:
            with _told(path):
                at = _opened(opened, os.fspath(self.folder), None)
                for part in above:
                    at = _opened(opened, part, at)
            _Copy(self.limits).entry(at, name, into, shown="", depth=0)


@dataclass
class _Copy:
    limits: Limits
    num_files: int = field(default=0, init=False)
    num_bytes: int = field(default=0, init=False)

    def entry(self, above: int, name: str, into: Path, *, shown: str, depth: int) -> None:
        with _told(shown or name):
            mode = os.stat(name, dir_fd=above, follow_symlinks=False).st_mode
        if not shown and not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise FileNotFoundError(name)
        if stat.S_ISDIR(mode):
            self._folder(above, name, into, shown=shown, depth=depth)
        elif stat.S_ISREG(mode):
            self._file(above, name, into, shown=shown)
        else:
            raise _odd(shown or name, mode)

    def _folder(self, above: int, name: str, into: Path, *, shown: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Refused(f"folders nested deeper than {MAX_DEPTH}", "write flatter folders")
        with _told(shown or name), contextlib.ExitStack() as opened:
            at = _opened(opened, name, above)
            into.mkdir()
            with os.scandir(at) as found:
                for each in found:
                    self._count(1, 0)
                    inside = f"{shown}/{each.name}" if shown else each.name
                    self.entry(at, each.name, into / each.name, shown=inside, depth=depth + 1)

    def _file(self, above: int, name: str, into: Path, *, shown: str) -> None:
        with _told(shown or name):
            source = os.open(name, _FILE, dir_fd=above)
        try:
            found = os.fstat(source)
            if not stat.S_ISREG(found.st_mode):
                raise _odd(shown or name, found.st_mode)
            self._count(0, found.st_size)  # of a sparse file, too: this is what would be copied
            with open(into, "xb") as target:
                left = found.st_size  # a file that still grows ends here
                while left and (piece := os.read(source, min(left, PIECE_BYTES))):
                    target.write(piece)
                    left -= len(piece)
        finally:
            os.close(source)

    def _count(self, files: int, size_bytes: int) -> None:
        self.num_files += files
        self.num_bytes += size_bytes
        if self.num_files > self.limits.disk_files:
            raise Refused(f"more than {self.limits.disk_files} files and folders", "pack small files into larger ones")
        if self.num_bytes > self.limits.disk_bytes:
            raise Refused(f"more than {self.limits.disk_bytes >> 20} MiB", "write less, or declare more disk")


@contextlib.contextmanager
def _told(shown: str) -> Iterator[None]:
    """A name that is another thing now than when it was looked at, or that its owner locked, is refused by its name.
    What is wrong with our own disk is not the job's."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EACCES:
            raise Refused(f"{_text(shown)}, which cannot be read", "leave what you write readable") from None
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENAMETOOLONG):
            raise Refused(f"{_text(shown)}, which is no plain file or folder", "write regular files only") from None
        raise


def _opened(stack: contextlib.ExitStack, name: str, above: int | None) -> int:
    fd = os.open(name, _FOLDER, dir_fd=above)
    stack.callback(os.close, fd)
    return fd


def _odd(shown: str, mode: int) -> Refused:
    if stat.S_ISLNK(mode):
        return Refused(f"{_text(shown)}, which is a link", "write a copy of the file instead")
    return Refused(f"{_text(shown)}, which is neither a file nor a folder", "write regular files only")


def _text(shown: str) -> str:
    return ascii(shown)[1:-1] if not shown.isprintable() else shown
