"""AdamW (Loshchilov and Hutter 2019) over one flat vector: element by element, so its bits depend on nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8


class AdamW:
    """``first`` and ``second`` are the moments, both [P] in float32."""

    def __init__(self, weights: Tensor, decayed: Tensor, *, beta1: float, beta2: float, weight_decay: float) -> None:
        self.first = torch.zeros_like(weights)
        self.second = torch.zeros_like(weights)
        self._weights, self._decayed = weights, decayed
        self._beta1, self._beta2, self._weight_decay = beta1, beta2, weight_decay

    @torch.no_grad()
    def step(self, gradient: Tensor, *, number: int, learning_rate: float) -> None:
        """Change the weights in place; ``number`` counts updates from 1."""
        self.first.mul_(self._beta1).add_(gradient, alpha=1 - self._beta1)
        self.second.mul_(self._beta2).addcmul_(gradient, gradient, value=1 - self._beta2)
        root = (self.second / (1 - self._beta2**number)).sqrt_().add_(EPSILON)
        self._weights.addcmul_(self._weights, self._decayed, value=-learning_rate * self._weight_decay)
        self._weights.addcdiv_(self.first, root, value=-learning_rate / (1 - self._beta1**number))
