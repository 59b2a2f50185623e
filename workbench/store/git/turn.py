"""Whose turn it is to write the ledger, and the note of the last entry whose refs are known to be moved.

The note is an index: without it the newest entry is compared with its refs once more.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from workbench.store.git import locks


class GitTurn:
    def __init__(self, git_dir: Path) -> None:
        self._git_dir = git_dir
        self._note = git_dir / "workbench" / "projected"

    def writers(self) -> AbstractContextManager[None]:
        return locks.writers(self._git_dir)

    def projected(self) -> str:
        try:
            return self._note.read_text("ascii", "replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""

    def note_projected(self, commit: str) -> None:
        fresh = locks.own_folder(self._git_dir) / "projected.new"  # one name: only whose turn it is writes here
        try:
            fresh.write_text(commit + "\n", "ascii")
            fresh.replace(self._note)
        except OSError:  # a full disk must not turn a change that was made into an error
            fresh.unlink(missing_ok=True)
