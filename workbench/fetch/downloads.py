"""Downloaded archives, kept by their sha256: what is pinned and here is not asked for again. It may be
deleted at any time."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from workbench.system import locks

BLOCK = 1 << 20
LEFT_AFTER_S = 600.0


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/workbench/downloads`` or its usual place."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "workbench" / "downloads"


class Downloads:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, sha256: str) -> Path | None:
        """The archive, verified again; a damaged one is dropped."""
        path = self._folder / sha256
        if not sha256 or not path.is_file():
            return None
        if digest_of_file(path) == sha256:
            return path
        path.unlink(missing_ok=True)
        return None

    def put(self, chunks: Iterable[bytes]) -> tuple[Path, str]:
        """Keep what ``chunks`` gives; its path and sha256. Nothing is left when it fails."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        handle, name = tempfile.mkstemp(prefix=".partial-", dir=self._folder)
        digest = hashlib.sha256()
        try:
            with os.fdopen(handle, "wb") as out:
                locks.take(out.fileno())  # while it lives, nobody sweeps it
                for chunk in chunks:
                    digest.update(chunk)
                    out.write(chunk)
            path = self._folder / digest.hexdigest()
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return path, digest.hexdigest()

    def _sweep(self) -> None:
        """Remove what killed downloads left; nothing that somebody still writes."""
        for path in self._folder.glob(".partial-*"):
            with suppress(OSError), open(path, "rb") as left:
                if time.time() - path.stat().st_mtime > LEFT_AFTER_S and locks.take(left.fileno()):
                    path.unlink()

    def drop(self, sha256: str) -> None:
        (self._folder / sha256).unlink(missing_ok=True)


def digest_of_file(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
