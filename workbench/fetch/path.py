"""A folder of this machine as a source. Links are not followed; the digest covers names and contents, in order."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from workbench.domain.errors import NotFound, UserError, WorldError
from workbench.fetch import names
from workbench.fetch.decompress import Stop
from workbench.fetch.limits import LIMITS, Limits
from workbench.fetch.names import Reason, Refusals, Taken
from workbench.fetch.writing import FolderWriter
from workbench.ports.fetch import Fetched, Refusal, Source

SKIPPED = frozenset([".git", ".hg", ".svn"])
CHUNK = 1 << 18


class PathFetcher:
    def __init__(self, limits: Limits = LIMITS) -> None:
        self._limits = limits

    def fetch(self, source: Source, into: Path, *, wanted: Sequence[str]) -> Fetched:
        """See the port. A pinned sha256 is that of the lines ``<sha256 of file>  <path>``, sorted by path."""
        root = Path(source.location).expanduser()
        if not source.location or not root.is_dir():
            raise NotFound(
                f"there is no folder {source.location!r}", f"give the source {source.name} a `location` that exists"
            )
        refusals, taken, files, sums = Refusals(self._limits.refusals), Taken(), [], []
        kept_bytes = 0
        with FolderWriter(into) as writer:
            try:
                for path, entry in _walk(root, self._limits):
                    reason = _refuse(path, entry, self._limits)
                    if reason is None and names.is_wanted(path, wanted):
                        reason = self._too_large(entry) or taken.claim(path)
                        if reason is None:
                            digest = hashlib.sha256()
                            kept_bytes += writer.write(path, _read(Path(entry.path), digest, self._limits.member_bytes))
                            files.append(path)
                            sums.append(f"{digest.hexdigest()}  {path}\n")
                    if reason is not None:
                        refusals.add(path, reason)
                    if kept_bytes > self._limits.kept_bytes:
                        raise Stop("size", f"more than {self._limits.kept_bytes} bytes of wanted files")
            except Stop as stop:
                writer.forget()
                return Fetched(source, (), (*_sorted(refusals), Refusal("", stop.rule, stop.detail)))
            except OSError as error:
                raise _unreadable(source, error) from None
        sha256 = hashlib.sha256("".join(sorted(sums, key=lambda line: line[66:])).encode()).hexdigest()
        if source.sha256 and source.sha256 != sha256:
            raise UserError(
                f"the files of {source.name} have the digest {sha256}, but {source.sha256} was expected",
                "the folder has changed: pin its new digest if that is meant",
            )
        return Fetched(source, tuple(sorted(files)), _sorted(refusals), {"sha256": sha256, "size": kept_bytes})

    def _too_large(self, entry: os.DirEntry[str]) -> Reason | None:
        size = entry.stat(follow_symlinks=False).st_size
        return Reason("size", f"{size} bytes") if size > self._limits.member_bytes else None


def _walk(root: Path, limits: Limits) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below ``root`` but its folders, sorted in each folder, without following a link."""
    folders = [("", str(root))]
    count = 0
    while folders:
        prefix, folder = folders.pop()
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            count += 1
            if count > limits.paths:
                raise Stop("count", f"more than {limits.paths} files and folders")
            path = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in SKIPPED:
                    if path.count("/") >= limits.depth:
                        raise Stop("depth", f"folders nested deeper than {limits.depth}")
                    folders.append((f"{path}/", entry.path))
            else:
                yield path, entry


def _refuse(path: str, entry: os.DirEntry[str], limits: Limits) -> Reason | None:
    if entry.is_symlink():
        return Reason("link")
    mode = entry.stat(follow_symlinks=False).st_mode
    if not stat.S_ISREG(mode):
        return Reason("fifo" if stat.S_ISFIFO(mode) else "device")
    return names.check(path, limits)


def _read(path: Path, digest: hashlib._Hash, cap: int) -> Iterator[bytes]:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    size = 0
    with os.fdopen(handle, "rb") as source:
        while chunk := source.read(CHUNK):
            size += len(chunk)
            if size > cap:
                raise UserError(f"{path.name} grows while it is read", "crawl a folder that nobody writes to")
            digest.update(chunk)
            yield chunk


def _unreadable(source: Source, error: OSError) -> UserError | WorldError:
    """Nothing is left out in silence: what cannot be read ends the crawl."""
    name = names.shown(os.fsdecode(error.filename)) if error.filename else "a file"
    text = f"{source.name}: {name} cannot be read: {error.strerror}"
    if isinstance(error, PermissionError):
        return UserError(text, "make it readable, or name a folder without it")
    return WorldError(text, "crawl a folder that nobody writes to, on a disk with room, and try again")


def _sorted(refusals: Refusals) -> tuple[Refusal, ...]:
    return tuple(sorted(refusals.rows(), key=lambda row: (row.rule == "more", row.path, row.rule)))
