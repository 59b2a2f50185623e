"""S3 dataset, as the planner sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.domain.refs import Kind
from workbench.domain.stage import StageSpec

_SHARES = (0.1, 0.05, 0.01, 0.01, 0.01, 0.01)  # by dial: a small source needs more to have any held out at all


def resolve(dial: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters; the dial sets how much is held out."""
    from workbench.config.dial import at_dial
    from workbench.config.params import resolve_params
    from workbench.stages.dataset.params import DatasetParams

    defaults = {"validation": at_dial(dial, _SHARES), "test": at_dial(dial, _SHARES)}
    return resolve_params(DatasetParams, given, stage="dataset", defaults=defaults).model_dump(mode="json")


SPEC = StageSpec(name="dataset", reads=(Kind.FILTERED,), makes=Kind.DATASET, resolve=resolve)
