"""The parameters of the shard stage."""

from __future__ import annotations

from pydantic import Field

from workbench.config.params import StageParams


class ShardParams(StageParams):
    """The length of a row, and how much of the train split is rearranged for fill-in-the-middle."""

    context: int = Field(ge=16, le=1 << 17, description="tokens in a row: the model's context")
    epochs: int = Field(1, ge=1, le=64, description="passes over the train split, each rearranged anew")
    fim_rate: float = Field(0.5, ge=0, le=1, description="share of the documents that are rearranged")
    fim_spm_rate: float = Field(0.5, ge=0, le=1, description="share of the rearranged windows in SPM, the rest in PSM")
    fim_window: int = Field(ge=16, le=1 << 20, description="characters of a document that are rearranged together")
    shard_bytes: int = Field(16 << 20, ge=1 << 10, le=1 << 31, description="size of a shard file")
