"""S3 dataset, as the planner sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.domain.refs import Kind
from workbench.domain.stage import StageSpec


def resolve(dial: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters; the dial changes nothing here."""
    from workbench.config.params import resolve_params
    from workbench.stages.dataset.params import DatasetParams

    return resolve_params(DatasetParams, given, stage="dataset").model_dump(mode="json")


SPEC = StageSpec(name="dataset", reads=(Kind.FILTERED,), makes=Kind.DATASET, resolve=resolve)
