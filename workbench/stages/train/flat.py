"""A model's parameters as one vector, with views where the model looks: sums, clipping and updates are then one
operation each, in one fixed order."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_ROW = 4096


class FlatParameters:
    """``weights`` and ``gradient`` [P] in float32; the module's parameters and their gradients are views of them."""

    def __init__(self, module: nn.Module) -> None:
        named = list(module.named_parameters())
        device = named[0][1].device
        self.shapes = {name: parameter.shape for name, parameter in named}
        self.num_parameters = sum(parameter.numel() for _, parameter in named)
        self.weights = torch.empty(self.num_parameters, device=device)
        self.gradient = torch.zeros(self.num_parameters, device=device)
        self.decayed = torch.zeros(self.num_parameters, device=device)  # 1 where weight decay applies
        start = 0
        for name, parameter in named:
            part = slice(start, start + parameter.numel())
            self.weights[part] = parameter.detach().flatten()
            parameter.data = self.weights[part].view(parameter.shape)
            parameter.grad = self.gradient[part].view(parameter.shape)
            self.decayed[part] = float(parameter.dim() > 1 and "embed" not in name)
            start = part.stop

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector's parts under the parameters' names, as copies on the CPU."""
        parts = torch.split(vector, [shape.numel() for shape in self.shapes.values()])
        return {
            name: part.reshape(shape).cpu().clone()
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def join(self, parts: Mapping[str, Tensor], into: Tensor) -> None:
        """The inverse of ``split``; KeyError or ValueError when the parts are those of another model."""
        start = 0
        for name, shape in self.shapes.items():
            if parts[name].shape != shape:
                raise ValueError(f"{name} has shape {tuple(parts[name].shape)}, not {tuple(shape)}")
            into[start : start + shape.numel()] = parts[name].flatten()
            start += shape.numel()


def norm(vector: Tensor) -> float:
    """Euclidean length, summed in rows of a fixed length and then exactly: no thread count changes it."""
    whole = vector.numel() // _ROW * _ROW
    rows = vector[:whole].view(-1, _ROW).double().square().sum(dim=1).tolist()
    rest = vector[whole:].double().square().tolist()
    return math.sqrt(math.fsum(rows + rest))
