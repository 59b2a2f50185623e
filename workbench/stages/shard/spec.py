"""What the shard stage reads, makes and may be told. No heavy library here."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from workbench.config import params
from workbench.domain.errors import UserError
from workbench.domain.refs import Kind
from workbench.domain.stage import Params, StageSpec

_CONTEXTS = (64, 128, 512, 1024, 2048, 2048)  # by dial
_CHARACTERS_PER_TOKEN = 1.5  # fewer than there are, so that most windows fit a row with room to spare


class ShardParams(BaseModel):
    """The length of a row, and how much of the train split is rearranged for fill-in-the-middle."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    context: int = Field(ge=8, le=1 << 17, description="tokens in a row: the model's context")
    epochs: int = Field(1, ge=1, le=64, description="passes over the train split, each rearranged anew")
    fim_rate: float = Field(0.5, ge=0, le=1, description="share of the documents that are rearranged")
    fim_spm_rate: float = Field(0.5, ge=0, le=1, description="share of the rearranged windows in SPM, the rest in PSM")
    fim_window: int = Field(ge=16, le=1 << 20, description="characters of a document that are rearranged together")
    shard_bytes: int = Field(16 << 20, ge=1 << 10, le=1 << 31, description="size of a shard file")


def resolve(dial: int, given: Params) -> dict[str, Any]:
    if dial < 0:
        raise UserError(f"the dial is {dial}", "0 is the smallest, 2 the demonstration")
    context = given.get("context", _CONTEXTS[min(dial, len(_CONTEXTS) - 1)])
    window = int(context * _CHARACTERS_PER_TOKEN) if isinstance(context, int) else 16
    return params.resolve(ShardParams, {"context": context, "fim_window": window, **given}, stage="shard")


SPEC = StageSpec(
    name="shard",
    reads=(Kind.DATASET, Kind.TOKENIZER),
    makes=Kind.SHARDS,
    resolve=resolve,
    libraries=("sentencepiece", "numpy"),
)
