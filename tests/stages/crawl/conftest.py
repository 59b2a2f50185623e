"""Sources on this machine, and a crawl of them by the real stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from workbench.app import stage_host
from workbench.domain.events import Log
from workbench.domain.stage import StageResult
from workbench.stages.crawl.spec import SPEC
from workbench.stages.crawl.stage import run

GOOD = {
    "src/lib.rs": b"pub fn works() {}\n",
    "Cargo.toml": b'[package]\nname = "x"\nlicense = "MIT"\n',
    "LICENSE": b"M\n",
}


class Crawl:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: list[str] = []
        self._count = 0

    def source(self, name: str, files: Mapping[str, bytes] | None = None) -> dict[str, Any]:
        """A folder as a source; good files unless others are given."""
        folder = self.root / "sources" / name
        for path, data in (GOOD if files is None else files).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        return {"kind": "path", "name": name, "location": str(folder)}

    def run(
        self, *sources: Mapping[str, Any], workers: int = 2, recorded: Path | None = None
    ) -> tuple[Path, StageResult]:
        self._count += 1
        output = self.root / f"raw-{self._count}"
        self.said = []
        result = stage_host.run_in_process(
            SPEC,
            run,
            inputs={"recorded": recorded} if recorded else {},
            output=output,
            params={"sources": [dict(source) for source in sources]},
            workers=workers,
            on_event=lambda event: self.said.append(event.text) if isinstance(event, Log) else None,
        )
        return output, result


@pytest.fixture
def crawl(tmp_path: Path) -> Crawl:
    return Crawl(tmp_path)


@pytest.fixture
def tree() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder."""

    def tree(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    return tree
