"""The parameters of the train stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from workbench.config.params import StageParams


class TrainParams(StageParams):
    """The model's shape, how long and how it is trained. Batches are counted in rows of the shards' context."""

    hidden_size: int = Field(ge=2, le=1 << 16, description="width; in multiples of 256 every GGUF type fits")
    intermediate_size: int = Field(ge=1, le=1 << 18, description="width of the feed-forward part, likewise")
    num_layers: int = Field(ge=1, le=512)
    num_heads: int = Field(ge=1, le=512)
    num_kv_heads: int = Field(ge=1, le=512)
    rope_theta: float = Field(10000.0, gt=0)

    steps: int = Field(ge=1, le=100_000_000)
    batch_rows: int = Field(ge=1, le=1 << 20, description="rows in a step")
    micro_rows: int = Field(ge=1, le=1 << 16, description="rows in a micro-batch; 2^k micro-batches make a step")
    learning_rate: float = Field(gt=0, le=10)
    schedule: Literal["cosine", "linear", "wsd"] = "linear"
    warmup_share: float = Field(0.05, ge=0, le=1, description="share of the steps in which the rate rises")
    decay_share: float = Field(0.2, ge=0, le=1, description="share of the steps in which wsd decays")
    final_lr_share: float = Field(0.02, ge=0, le=1, description="of the learning rate, at the last step")
    weight_decay: float = Field(0.1, ge=0, le=10, description="of matrices, not of embeddings and norms")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.98, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0, description="longest gradient")

    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="what products are computed in; weights, sums and the optimizer stay float32"
    )
    device: Literal["cpu", "cuda"] = "cpu"
    checkpoint_every: int = Field(ge=1, description="steps")
    validate_every: int = Field(ge=1, description="steps")
    validation_rows: int = Field(32, ge=0, le=1 << 20)

    @model_validator(mode="after")
    def _fits(self) -> TrainParams:
        micro_batches, rest = divmod(self.batch_rows, self.micro_rows)
        if rest or micro_batches & (micro_batches - 1):
            raise ValueError("batch_rows must be micro_rows times a power of two")
        if self.hidden_size % self.num_heads or self.hidden_size // self.num_heads % 2:
            raise ValueError("hidden_size must be num_heads times an even number")
        if self.num_heads % self.num_kv_heads:
            raise ValueError("num_heads must be a multiple of num_kv_heads")
        return self
