"""Whose turn it is to write the ledger, and two notes: the last entry that was begun here, and the last one whose refs
are known to be moved.

The second is an index: without it the newest entry is compared with its refs once more. The first is not: it tells an
entry of this repository from one that was fetched.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from workbench.store.git import locks, process
from workbench.system import durable


class GitTurn:
    def __init__(self, git_dir: Path) -> None:
        self._git_dir = git_dir

    def writers(self) -> AbstractContextManager[object]:
        return locks.writers(self._git_dir)

    def begun(self) -> str:
        return self._read("begun")

    def note_begun(self, commit: str) -> None:
        path = locks.own_folder(self._git_dir) / "begun"
        try:
            with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b", buffering=0) as file:
                is_new = os.fstat(file.fileno()).st_size == 0
                file.write(commit.encode() + b"\n")  # in place: so little, within one sector, is written whole or not
                os.fdatasync(file.fileno())
            if is_new:
                durable.sync_folder(path.parent)
        except OSError as error:
            raise process.explain("noting the entry", str(error)) from error

    def projected(self) -> str:
        return self._read("projected")

    def note_projected(self, commit: str) -> None:
        fresh = locks.own_folder(self._git_dir) / "projected.new"  # one name: only whose turn it is writes here
        try:
            fresh.write_text(f"{commit}\n", "ascii")
            fresh.replace(fresh.with_suffix(""))
        except OSError:  # a full disk must not turn a change that was made into an error
            fresh.unlink(missing_ok=True)

    def _read(self, name: str) -> str:
        try:
            return (self._git_dir / "workbench" / name).read_text("ascii", "replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""
