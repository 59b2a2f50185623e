"""What the tokenizer stage reads, makes and may be told. No heavy library here."""

from __future__ import annotations

from typing import Any

from workbench.domain.refs import Kind
from workbench.domain.stage import Params, StageSpec

_VOCAB_SIZES = (512, 1024, 4096, 8192, 16384, 32768)  # by dial
_SAMPLE_BYTES = (1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30)


def resolve(dial: int, given: Params) -> dict[str, Any]:
    from workbench.config.dial import at_dial
    from workbench.config.params import resolve_params
    from workbench.stages.tokenizer.params import TokenizerParams

    defaults = {"vocab_size": at_dial(dial, _VOCAB_SIZES), "sample_bytes": at_dial(dial, _SAMPLE_BYTES)}
    return resolve_params(TokenizerParams, given, stage="tokenizer", defaults=defaults).model_dump(mode="json")


SPEC = StageSpec(
    name="tokenizer",
    reads=(Kind.DATASET,),
    makes=Kind.TOKENIZER,
    resolve=resolve,
    libraries=("sentencepiece", "protobuf"),
    major_params=("vocab_size", "sample_bytes", "character_coverage", "longest_piece"),  # each changes the ids
    major_files=("tokenizer.model",),
)
