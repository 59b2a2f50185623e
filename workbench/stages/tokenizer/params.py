"""The parameters of the tokenizer stage."""

from __future__ import annotations

from pydantic import Field

from workbench.config.params import StageParams


class TokenizerParams(StageParams):
    """The vocabulary's size and what it is learnt from."""

    vocab_size: int = Field(ge=300, le=1 << 20)
    sample_bytes: int = Field(ge=1024, description="text of the train split that the trainer sees, in its order")
    character_coverage: float = Field(0.9995, ge=0.9, le=1.0, description="the rest falls back to bytes")
    longest_piece: int = Field(16, ge=1, le=64, description="in characters")
    sweep: tuple[int, ...] = Field((), description="other vocabulary sizes to compare in the report")
