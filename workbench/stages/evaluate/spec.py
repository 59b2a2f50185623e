"""What S7 evaluate reads, makes and may be told. Importing it is cheap."""

from __future__ import annotations

from typing import Any

from workbench.domain.errors import UserError
from workbench.domain.refs import Kind
from workbench.domain.stage import Params, StageSpec

_BY_DIAL = (  # likelihood_bytes, line_tasks, compile_tasks, samples
    (64 << 10, 16, 8, 2),
    (256 << 10, 96, 48, 4),
    (1 << 20, 192, 96, 5),
    (4 << 20, 384, 192, 8),
    (16 << 20, 768, 384, 10),
)


def resolve(dial: int, given: Params) -> dict[str, Any]:
    from workbench.config.params import resolve_params
    from workbench.stages.evaluate.params import EvaluateParams

    if dial < 0:
        raise UserError(f"the dial is {dial}", "0 is the smallest, 2 the demonstration")
    names = ("likelihood_bytes", "line_tasks", "compile_tasks", "samples")
    defaults = dict(zip(names, _BY_DIAL[min(dial, len(_BY_DIAL) - 1)], strict=True))
    return resolve_params(EvaluateParams, given, stage="evaluate", defaults=defaults).model_dump(mode="json")


SPEC = StageSpec(
    name="evaluate",
    reads=(Kind.MODEL, Kind.TOKENIZER, Kind.DATASET),
    makes=Kind.METRICS,
    resolve=resolve,
    libraries=("matplotlib", "numpy", "safetensors", "sentencepiece", "torch", "tree-sitter", "tree-sitter-rust"),
    tools=("rustc", "bwrap"),
    previous=True,
    adapters=("sandbox",),
)
