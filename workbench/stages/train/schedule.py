"""The learning rate of each step: a pure function. Steps count from 0."""

from __future__ import annotations

import math

from workbench.stages.train.params import TrainParams


def learning_rate(step: int, params: TrainParams) -> float:
    """Linear warm-up, then cosine or linear decay to the last step, or wsd: constant, and a linear decay at the end."""
    warmup = max(1, round(params.steps * params.warmup_share))
    if step < warmup:
        return params.learning_rate * (step + 1) / warmup
    first = warmup
    if params.schedule == "wsd":
        first = max(warmup, params.steps - max(1, round(params.steps * params.decay_share)))
        if step < first:
            return params.learning_rate
    done = (step - first + 1) / max(1, params.steps - first)
    left = (1 + math.cos(math.pi * done)) / 2 if params.schedule == "cosine" else 1 - done
    return params.learning_rate * (params.final_lr_share + (1 - params.final_lr_share) * left)
