"""What the tokenizer stage reads, makes and may be told. No heavy library here."""

from __future__ import annotations

from typing import Any

from workbench.domain.errors import UserError
from workbench.domain.refs import Kind
from workbench.domain.stage import Params, StageSpec

_VOCAB_SIZES = (512, 1024, 4096, 8192, 16384, 32768)  # by dial
_SAMPLE_BYTES = (1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30)


def resolve(dial: int, given: Params) -> dict[str, Any]:
    from workbench.config.params import resolve_params
    from workbench.stages.tokenizer.params import TokenizerParams

    if dial < 0:
        raise UserError(f"the dial is {dial}", "0 is the smallest, 2 the demonstration")
    step = min(dial, len(_VOCAB_SIZES) - 1)
    defaults = {"vocab_size": _VOCAB_SIZES[step], "sample_bytes": _SAMPLE_BYTES[step]}
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
