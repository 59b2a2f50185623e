"""How numbers are computed, applied for the time of training and recorded in the model.

There is no autocast: weights, gradients, sums, norms, logits and the optimizer are float32; ``precision`` is what
matrix products and attention are computed in. bfloat16 has float32's range, so no loss scaling is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from workbench.domain.errors import ToolMissing
from workbench.stages.train.params import TrainParams


def compute_type(params: TrainParams) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[params.precision]


def check_device(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        raise ToolMissing(
            "there is no CUDA device", "use device = cpu, or a machine with a GPU and a CUDA build of torch"
        )


@contextmanager
def deterministic(params: TrainParams, threads: int) -> Iterator[None]:
    """Deterministic algorithms alone, one attention kernel, ``threads`` threads; as it was, afterwards."""
    threads_before, strict_before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=False)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    kernel = SDPBackend.FLASH_ATTENTION if params.device == "cpu" else SDPBackend.MATH
    try:
        with sdpa_kernel(kernel):
            yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(strict_before)


def record(params: TrainParams, threads: int) -> dict[str, Any]:
    """What the bits depend on besides shards, parameters and seed: the class of machine, no name of one."""
    device: dict[str, Any] = {"device": params.device}
    if params.device == "cuda":
        device["gpu"] = torch.cuda.get_device_name()
    return {
        **device,
        "compute": params.precision,
        "master": "float32",
        "accumulate": "float32",
        "loss_scaling": "none",
        "autocast": False,
        "mode": "repro",
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "torch": torch.__version__,
    }
