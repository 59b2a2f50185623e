"""Whose turn it is to write the ledger, and two notes: the last entry that was begun here, and the last one whose refs
are known to be moved.

The second is an index: without it the newest entry is compared with its refs once more. The first is not: it tells an
entry of this repository from one that was fetched.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from workbench.store.git import locks, process


class GitTurn:
    def __init__(self, git_dir: Path) -> None:
        self._git_dir = git_dir

    def writers(self) -> AbstractContextManager[object]:
        return locks.writers(self._git_dir)

    def begun(self) -> str:
        return self._read("begun")

    def note_begun(self, commit: str) -> None:
        try:
            self._write("begun", commit, is_synced=True)
        except OSError as error:
            raise process.explain("noting the entry", str(error)) from error

    def projected(self) -> str:
        return self._read("projected")

    def note_projected(self, commit: str) -> None:
        with suppress(OSError):  # a full disk must not turn a change that was made into an error
            self._write("projected", commit, is_synced=False)

    def _read(self, name: str) -> str:
        try:
            return (self._git_dir / "workbench" / name).read_text("ascii", "replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""

    def _write(self, name: str, commit: str, *, is_synced: bool) -> None:
        fresh = locks.own_folder(self._git_dir) / f"{name}.new"  # one name: only whose turn it is writes here
        try:
            with open(fresh, "w", encoding="ascii") as file:
                file.write(commit + "\n")
                if is_synced:
                    file.flush()
                    os.fsync(file.fileno())
            fresh.replace(fresh.with_suffix(""))
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
