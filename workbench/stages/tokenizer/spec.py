"""What the tokenizer stage reads, makes and may be told. No heavy library here."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from workbench.config import params
from workbench.domain.errors import UserError
from workbench.domain.refs import Kind
from workbench.domain.stage import Params, StageSpec

_VOCAB_SIZES = (512, 1024, 4096, 8192, 16384, 32768)  # by dial
_SAMPLE_BYTES = (1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30)


class TokenizerParams(BaseModel):
    """The vocabulary's size and what it is learnt from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    vocab_size: int = Field(ge=300, le=1 << 20)
    sample_bytes: int = Field(ge=1024, description="text of the train split that the trainer sees, in its order")
    character_coverage: float = Field(0.9995, ge=0.9, le=1.0, description="the rest falls back to bytes")
    longest_piece: int = Field(16, ge=1, le=64, description="in characters")
    sweep: tuple[int, ...] = Field((), description="other vocabulary sizes to compare in the report")


def resolve(dial: int, given: Params) -> dict[str, Any]:
    if dial < 0:
        raise UserError(f"the dial is {dial}", "0 is the smallest, 2 the demonstration")
    step = min(dial, len(_VOCAB_SIZES) - 1)
    defaults = {"vocab_size": _VOCAB_SIZES[step], "sample_bytes": _SAMPLE_BYTES[step]}
    return params.resolve(TokenizerParams, {**defaults, **given}, stage="tokenizer")


SPEC = StageSpec(
    name="tokenizer",
    reads=(Kind.DATASET,),
    makes=Kind.TOKENIZER,
    resolve=resolve,
    libraries=("sentencepiece", "protobuf"),
    major_params=("vocab_size", "sample_bytes", "character_coverage", "longest_piece"),  # each changes the ids
)
