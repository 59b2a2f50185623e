"""What S7 evaluate reads, makes and may be told. Importing it is cheap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.domain.errors import ToolMissing, UserError
from workbench.domain.refs import Kind
from workbench.domain.stage import Params, StageSpec

_BY_DIAL = (  # likelihood_bytes, line_tasks, compile_tasks, samples
    (64 << 10, 16, 8, 2),
    (256 << 10, 96, 48, 4),
    (1 << 20, 192, 96, 5),
    (4 << 20, 384, 192, 8),
    (16 << 20, 768, 384, 10),
    (16 << 20, 768, 384, 10),
)
SHORTEST_PROMPT = 16  # tokens: the least that is shown around a masked span


def resolve(dial: int, given: Params) -> dict[str, Any]:
    from workbench.config.dial import at_dial
    from workbench.config.params import resolve_params
    from workbench.stages.evaluate.params import EvaluateParams

    names = ("likelihood_bytes", "line_tasks", "compile_tasks", "samples")
    defaults = dict(zip(names, at_dial(dial, _BY_DIAL), strict=True))
    return resolve_params(EvaluateParams, given, stage="evaluate", defaults=defaults).model_dump(mode="json")


def check_room(context: int, max_new_tokens: int) -> None:
    """UserError where a model's context has no room for a prompt and an answer."""
    if context <= max_new_tokens + SHORTEST_PROMPT:
        raise UserError(
            f"a context of {context} tokens has no room for {max_new_tokens} more",
            "lower evaluate's max_new_tokens, or raise shard's context",
        )


def fits(params: Mapping[str, Params]) -> None:
    if "shard" in params:
        check_room(params["shard"]["context"], params["evaluate"]["max_new_tokens"])


def without(params: Params, tool: str, problem: str) -> str:
    """What compile checks come to. Said before the model is trained, not after."""
    if params["compile"] == "skip" or not params["compile_tasks"]:
        return ""
    what = f"{tool} cannot be used: {problem}"
    if params["compile"] == "require":
        raise ToolMissing(f"evaluate is to compile, and {what}", 'mend that, or set evaluate\'s compile = "auto"')
    return f"nothing is compiled: {what}"


SPEC = StageSpec(
    name="evaluate",
    reads=(Kind.MODEL, Kind.TOKENIZER, Kind.DATASET),
    makes=Kind.METRICS,
    resolve=resolve,
    libraries=("matplotlib", "numpy", "safetensors", "sentencepiece", "torch", "tree-sitter", "tree-sitter-rust"),
    llama=True,
    tools=("rustc", "bwrap"),
    without=without,
    previous=True,
    adapters=("sandbox",),
    fits=fits,
)
