"""What ``workbench gc`` does beside the store's own maintenance."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from workbench.ports.store import Repository
from workbench.system.temporary import sweep


def sweep_temporary(repository: Repository) -> Iterator[str]:
    """Remove the temporary folders of workbench processes that were killed; a sentence for each place."""
    for base in (Path(tempfile.gettempdir()), repository.path, repository.path / "workbench"):
        if swept := sweep(base):
            yield f"removed {len(swept)} temporary folder{'s' if len(swept) > 1 else ''} of killed processes in {base}"
