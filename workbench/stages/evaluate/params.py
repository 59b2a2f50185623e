"""What the evaluate stage may be told. Imported when parameters are resolved, since pydantic is not cheap."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from workbench.config.params import StageParams


class EvaluateParams(StageParams):
    """How much is measured, and how completions are drawn."""

    split: Literal["validation", "test"] = Field("validation", description="the held-out documents to use")
    likelihood_bytes: int = Field(ge=1, le=1 << 34, description="text for bits per byte, in the split's order")
    line_tasks: int = Field(ge=0, le=100_000, description="statements to fill in, for exact match")
    compile_tasks: int = Field(ge=0, le=100_000, description="snippets to fill in and compile")
    samples: int = Field(ge=1, le=200, description="completions drawn for each snippet, for pass@k")
    compile: Literal["auto", "require", "skip"] = Field(
        "auto",
        description="rustc in the sandbox: auto reports without it where it is missing, require fails, skip never asks",
    )
    temperature: float = Field(0.8, gt=0, le=10, description="of the drawn completions; the first one is greedy")
    top_k: int = Field(40, ge=0, le=1 << 20)
    top_p: float = Field(0.95, gt=0, le=1)
    max_new_tokens: int = Field(48, ge=1, le=4096)
    longest_middle: int = Field(96, ge=8, le=4096, description="characters of a masked span")
    context_characters: int = Field(1024, ge=64, le=1 << 20, description="shown around a masked span")
    confidence: float = Field(0.95, gt=0.5, lt=1)
    resamples: int = Field(1000, ge=100, le=100_000, description="of the bootstrap behind each comparison")
