"""Batched generation with a key-value cache, greedy or seeded. For evaluation; people are served by llama.cpp.

The random number of a token depends on (seed, row, position) alone, not on the batch it runs in. (The logits of a row
may differ in their last bits with the batch's shape, as everywhere.)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from workbench.decoder.model import Decoder
from workbench.domain.errors import UserError
from workbench.domain.generation import Sampling


def generate(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop: Collection[int],
    batch: int = 16,
    rows: Sequence[int] | None = None,
) -> list[list[int]]:
    """What follows each prompt: at most ``sampling.max_tokens`` ids, ending before the first id in ``stop``, or where
    the model's context ends. ``rows`` number the prompts for the random numbers (0, 1, … by default)."""
    if sampling.repeat_penalty != 1.0 or sampling.stop:
        raise UserError("repeat_penalty and stop texts are not for evaluation", "leave them at their defaults")
    context = decoder.config.max_position_embeddings
    for number, prompt in enumerate(prompts):
        if not 0 < len(prompt) < context:
            raise UserError(f"prompt {number} has {len(prompt)} tokens", f"give 1 to {context - 1} tokens")
    numbers = list(range(len(prompts)) if rows is None else rows)
    by_length = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(by_length), batch):
        chosen = by_length[start : start + batch]
        found = _generate_batch(
            decoder, [prompts[index] for index in chosen], [numbers[index] for index in chosen], sampling, stop
        )
        for index, answer in zip(chosen, found, strict=True):
            answers[index] = answer
    return answers


@torch.inference_mode()
def _generate_batch(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[int],
    sampling: Sampling,
    stop: Collection[int],
) -> list[list[int]]:
    longest = max(map(len, prompts))
    limits = [min(sampling.max_tokens, decoder.config.max_position_embeddings - len(prompt)) for prompt in prompts]
    pad = decoder.config.pad_token_id
    ids_BT = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    padding_B = torch.tensor([longest - len(prompt) for prompt in prompts]).to(decoder.device)
    cache = decoder.new_cache(len(prompts), longest + max(limits))
    answers: list[list[int]] = [[] for _ in prompts]
    open_rows = set(range(len(prompts)))
    for position in range(max(limits)):
        logits = decoder(ids_BT.to(decoder.device), cache=cache, padding_B=padding_B, last_only=True)
        chosen = _choose(logits[:, 0], rows, position, sampling)
        for index in sorted(open_rows):
            if chosen[index] not in stop:
                answers[index].append(chosen[index])
            if chosen[index] in stop or len(answers[index]) == limits[index]:
                open_rows.discard(index)
        if not open_rows:
            break
        ids_BT = torch.tensor(chosen)[:, None]
    return answers


def _choose(logits_BV: Tensor, rows: Sequence[int], position: int, sampling: Sampling) -> list[int]:
    if sampling.temperature == 0:
        greedy: list[int] = logits_BV.argmax(dim=-1).tolist()
        return greedy
    return [
        _sample(logits, _uniform(sampling.seed, row, position), sampling)
        for logits, row in zip(logits_BV.double().cpu().numpy(), rows, strict=True)
    ]


def _sample(logits: np.ndarray, uniform: float, sampling: Sampling) -> int:
    """Top-k, then top-p, then min-p, then temperature (llama.cpp's order), then the inverse of the cumulative sum."""
    order = np.argsort(-logits, kind="stable")[: sampling.top_k or None]
    plain = np.exp(logits[order] - logits[order[0]])
    plain /= plain.sum()
    keep = max(1, int(np.searchsorted(np.cumsum(plain), sampling.top_p)) + 1)
    keep = min(keep, max(1, int((plain >= sampling.min_p * plain[0]).sum())))
    order = order[:keep]
    weights = np.exp((logits[order] - logits[order[0]]) / sampling.temperature)
    cumulative = np.cumsum(weights)
    return int(order[min(int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right")), keep - 1)])


def _uniform(seed: int, row: int, position: int) -> float:
    bits = np.random.Philox(key=[seed & (1 << 64) - 1, row], counter=[position, 0, 0, 0]).random_raw()
    return float(bits) / 2**64
