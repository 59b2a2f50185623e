"""What worker processes compute with the model: bits of documents, and completions. One thread each, so that no sum is
ordered by the number of workers; batches are given, so that no sum is ordered by who takes which.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.domain.generation import Sampling
from workbench.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from workbench.decoder.model import Decoder

WINDOWS = 8  # in a forward pass, at most
LOGITS = 1 << 25  # numbers that a forward pass may give: 128 MiB; a large vocabulary takes fewer windows
POSITIONS = 512  # whose losses are summed together, in double precision
BATCH = 16  # completions that are drawn together


@dataclass(frozen=True)
class Text:
    """A document whose likelihood is wanted."""

    id: str
    text: str


@dataclass(frozen=True)
class Bits:
    id: str
    bits: float  # of all tokens of the text, the end excluded
    bytes: int  # of the raw text
    tokens: int


@dataclass(frozen=True)
class Request:
    """A fill-in-the-middle prompt; ``row`` names its random numbers."""

    key: str  # task id, layout and sample
    prefix: str
    suffix: str
    layout: str
    row: int


@dataclass(frozen=True)
class Batch:
    requests: tuple[Request, ...]
    sampling: Sampling


@dataclass(frozen=True)
class Completion:
    key: str
    text: str
    tokens: int
    ended: bool  # by itself, not at the limit


Work = Text | Batch


def compute(work: Work, *, model: Path, tokenizer: Path) -> Bits | list[Completion]:
    """One document's bits, or one batch of completions."""
    with _one_thread():
        if isinstance(work, Text):
            return bits(_decoder(model), _tokenizer(tokenizer), work)
        return complete(_decoder(model), _tokenizer(tokenizer), work)


def bits(decoder: Decoder, tokenizer: Tokenizer, text: Text) -> Bits:
    """The information of a text under the model, in base 2. Each token is predicted once, from at most a context's
    worth of what precedes it in its own document."""
    import torch
    from torch.nn import functional

    ids = tokenizer.prompt(text.text)
    size = decoder.config.max_position_embeddings
    starts = range(0, len(ids) - 1, size)
    num_windows = max(1, min(WINDOWS, LOGITS // (size * decoder.config.vocab_size)))
    total = 0.0
    with torch.inference_mode():
        for first in range(0, len(starts), num_windows):
            windows = [ids[start : start + size + 1] for start in starts[first : first + num_windows]]
            longest = max(map(len, windows)) - 1
            pad = decoder.config.pad_token_id
            inputs = torch.tensor([window[:-1] + [pad] * (longest - len(window) + 1) for window in windows])
            targets = torch.tensor([window[1:] + [-100] * (longest - len(window) + 1) for window in windows])
            logits = decoder(inputs).flatten(0, 1)
            for some, wanted in zip(
                torch.split(logits, POSITIONS), torch.split(targets.flatten(), POSITIONS), strict=True
            ):
                total += float(functional.cross_entropy(some.double(), wanted, ignore_index=-100, reduction="sum"))
    return Bits(text.id, round(total / math.log(2), 3), len(text.text.encode()), len(ids) - 1)


def complete(decoder: Decoder, tokenizer: Tokenizer, batch: Batch) -> list[Completion]:
    """The middles that the model draws for a batch, in the order of the requests."""
    from workbench.decoder.generation import generate

    prompts = [tokenizer.fim_prompt(r.prefix, r.suffix, r.layout) for r in batch.requests]
    control = set(tokenizer.ids.values())
    rows = [request.row for request in batch.requests]
    answers = generate(decoder, prompts, batch.sampling, stop=control, batch=len(prompts), rows=rows)
    limit = batch.sampling.max_tokens
    return [
        Completion(request.key, tokenizer.decode(answer), len(answer), len(answer) < limit)
        for request, answer in zip(batch.requests, answers, strict=True)
    ]


def batches(requests: Sequence[Request], sampling: Sampling, lengths: Sequence[int]) -> Iterator[Batch]:
    """Requests of like length together (less padding), the same whatever the order they come in."""
    order = sorted(range(len(requests)), key=lambda index: (lengths[index], requests[index].key))
    for start in range(0, len(order), BATCH):
        yield Batch(tuple(requests[index] for index in order[start : start + BATCH]), sampling)


@cache
def _decoder(folder: Path) -> Decoder:
    from workbench.decoder import weights

    return weights.load(folder)


@cache
def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
