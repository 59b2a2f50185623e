"""S1 crawl, as the planner sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.domain.refs import Kind
from workbench.domain.stage import StageSpec


def resolve(dial: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters; the dial changes nothing here."""
    from workbench.config.params import resolve_params
    from workbench.stages.crawl.params import CrawlParams

    return resolve_params(CrawlParams, given, stage="crawl").model_dump(mode="json")


SPEC = StageSpec(name="crawl", reads=(), makes=Kind.RAW, resolve=resolve, replays=True, adapters=("fetch",))
