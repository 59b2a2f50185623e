"""The Fetcher: each kind of source goes to its own small file. Not here: what is done with the files (see crawl)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from workbench.domain.errors import UserError
from workbench.fetch.downloads import Downloads, default_folder
from workbench.fetch.limits import LIMITS, Limits
from workbench.ports.fetch import Fetched, Fetcher, Source

KINDS = ("sdist", "git", "crate", "path")


class SourceFetcher:
    """Fetches sources of every kind; ``cache`` keeps downloads by sha256. Safe to use from several threads."""

    def __init__(self, cache: Path | None = None, *, limits: Limits = LIMITS) -> None:
        self._cache = cache
        self._limits = limits

    def fetch(self, source: Source, into: Path, *, wanted: Sequence[str]) -> Fetched:
        if source.kind not in KINDS:
            nearest = difflib.get_close_matches(source.kind, KINDS, 1)
            raise UserError(
                f"{source.name}: there is no kind of source {source.kind!r}",
                f"did you mean {nearest[0]!r}?" if nearest else f"kinds: {', '.join(KINDS)}",
            )
        fetcher: Fetcher = getattr(self, f"_{source.kind}")
        return fetcher.fetch(source, into, wanted=wanted)

    @cached_property
    def _sdist(self) -> Fetcher:
        from workbench.fetch.sdist import SdistFetcher

        return SdistFetcher(Downloads(self._cache or default_folder()), limits=self._limits)

    @cached_property
    def _git(self) -> Fetcher:
        from workbench.fetch.git import GitFetcher

        return GitFetcher(limits=self._limits)

    @cached_property
    def _crate(self) -> Fetcher:
        from workbench.fetch.crate import CrateFetcher

        return CrateFetcher(limits=self._limits)

    @cached_property
    def _path(self) -> Fetcher:
        from workbench.fetch.path import PathFetcher

        return PathFetcher(self._limits)
