"""What the shard stage reads, makes and may be told. No heavy library here."""

from __future__ import annotations

from typing import Any

from workbench.domain.refs import Kind
from workbench.domain.stage import Params, StageSpec

_CONTEXTS = (128, 128, 512, 1024, 2048, 2048)  # by dial
_CHARACTERS_PER_TOKEN = 1.5  # fewer than there are, so that most windows fit a row with room to spare


def resolve(dial: int, given: Params) -> dict[str, Any]:
    from workbench.config.dial import at_dial
    from workbench.config.params import resolve_params
    from workbench.stages.shard.params import ShardParams

    context = given.get("context", at_dial(dial, _CONTEXTS))
    window = int(context * _CHARACTERS_PER_TOKEN) if isinstance(context, int) else 16
    defaults = {"context": context, "fim_window": window}
    return resolve_params(ShardParams, given, stage="shard", defaults=defaults).model_dump(mode="json")


SPEC = StageSpec(
    name="shard",
    reads=(Kind.DATASET, Kind.TOKENIZER),
    makes=Kind.SHARDS,
    resolve=resolve,
    libraries=("sentencepiece", "numpy"),
    carries=(Kind.TOKENIZER,),
)
