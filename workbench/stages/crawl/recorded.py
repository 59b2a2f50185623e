"""A Fetcher over the payload that an earlier crawl recorded: the same bytes again, with no network."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from workbench.corpus import rows
from workbench.corpus.rows import PackageRow, RefusalRow
from workbench.domain.errors import NotFound, UserError
from workbench.ports.fetch import Fetched, Refusal, Source


class RecordedFetcher:
    def __init__(self, payload: Path) -> None:
        self._payload = payload
        self._packages = {row.package: row for row in rows.read(PackageRow, payload / rows.PACKAGES)}
        self._refusals = rows.read(RefusalRow, payload / rows.REFUSALS)

    def fetch(self, source: Source, into: Path, *, wanted: Sequence[str]) -> Fetched:
        """See the port; NotFound for a source that was not recorded."""
        package = f"{source.name}-{source.version}" if source.version else source.name
        recorded = self._packages.get(package)
        if recorded is None or recorded.kind != source.kind:
            raise NotFound(f"the recorded crawl has no {source.kind} {package}", "crawl it: workbench run --only crawl")
        if source.sha256 and source.sha256 != recorded.sha256:
            raise UserError(
                f"{package} was recorded with sha256 {recorded.sha256}, not {source.sha256}", "crawl it again"
            )
        folder = self._payload / rows.PACKAGES_FOLDER / package
        files = tuple(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()))
        for path in files:
            (into / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, into / path)
        refusals = tuple(Refusal(r.path, r.rule, r.detail) for r in self._refusals if r.package == package)
        provenance = {"sha256": recorded.sha256, "size": recorded.size, "commit": recorded.commit}
        return Fetched(source, files, refusals, provenance)
