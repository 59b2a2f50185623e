"""Where the hub's processes keep what is not in Git: ``<hub>/workbench/``. All of it may be deleted while nothing runs.

The names are repeated in ``cli/hook_client.py``, which imports nothing; a test holds them equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = "workbench"
SOCKET = "policy.sock"


@dataclass(frozen=True)
class HubLayout:
    git_dir: Path

    @property
    def folder(self) -> Path:
        return self.git_dir / FOLDER

    @property
    def socket(self) -> Path:
        return self.folder / SOCKET

    @property
    def worker_wake(self) -> Path:
        """A FIFO that the policy process writes to; the worker reads it."""
        return self.folder / "worker.wake"

    @property
    def runs(self) -> Path:
        """Logs and pids of runs while they are running."""
        return self.folder / "runs"

    @property
    def policy_lock(self) -> Path:
        return self.folder / "policy.lock"

    @property
    def worker_lock(self) -> Path:
        return self.folder / "worker.lock"

    @property
    def beside_lock(self) -> Path:
        """Held by the one who records what moved beside the ledger."""
        return self.folder / "beside.lock"

    @property
    def fold(self) -> Path:
        """The queue and where the ledger left each ref: an index that is rebuilt when it is missing."""
        return self.folder / "ledger.json"

    @property
    def log(self) -> Path:
        return self.folder / "processes.log"

    def create(self) -> None:
        for folder in (self.folder, self.runs):
            folder.mkdir(mode=0o700, exist_ok=True)
