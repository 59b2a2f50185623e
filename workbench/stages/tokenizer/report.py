"""Figures of a tokenizer over a corpus, added up from parts in any order. Not here: the judgement.

Entropy is of single tokens. Rényi efficiency with alpha 2.5 after Zouhar et al. 2023 (arXiv 2306.16842): a diagnostic,
never a gate. All are rounded, so that a report does not depend on the machine's logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RENYI_ALPHA = 2.5


@dataclass(frozen=True)
class Counts:
    """What was counted over some documents; ``histogram`` is the number of uses by token id."""

    documents: int
    bytes: int
    characters: int
    words: int  # separated by white space
    lines: int
    fallback_characters: int  # characters written as byte tokens
    histogram: npt.NDArray[np.int64]
    failure: str = ""  # id of the first document that did not come back

    @property
    def tokens(self) -> int:
        return int(self.histogram.sum())

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.documents + other.documents,
            self.bytes + other.bytes,
            self.characters + other.characters,
            self.words + other.words,
            self.lines + other.lines,
            self.fallback_characters + other.fallback_characters,
            self.histogram + other.histogram,
            self.failure or other.failure,
        )


def figures(counts: Counts, byte_tokens: Sequence[int]) -> dict[str, Any]:
    """The figures of ``report.json`` for a corpus; all zero for an empty one."""
    uses = [int(number) for number in counts.histogram if number]
    tokens, vocab_size = counts.tokens, len(counts.histogram)
    shares = [number / tokens for number in uses]
    entropy = -math.fsum(share * math.log2(share) for share in shares)
    renyi = math.log2(math.fsum(share**RENYI_ALPHA for share in shares)) / (1 - RENYI_ALPHA) if shares else 0.0
    byte_uses = int(counts.histogram[list(byte_tokens)].sum())
    return {
        "documents": counts.documents,
        "bytes": counts.bytes,
        "tokens": tokens,
        "coverage": _ratio(counts.characters - counts.fallback_characters, counts.characters),
        "byte_fallback_rate": _ratio(byte_uses, tokens),
        "entropy_bits": round(entropy, 6) + 0.0,
        "entropy_efficiency": round(entropy / math.log2(vocab_size), 6) + 0.0,
        "renyi_efficiency": round(renyi / math.log2(vocab_size), 6) + 0.0,
        "tokens_per_word": _ratio(tokens, counts.words),
        "tokens_per_line": _ratio(tokens, counts.lines),
        "bytes_per_token": _ratio(counts.bytes, tokens),
        "vocabulary_used": _ratio(len(uses), vocab_size),
        "vocabulary_used_100_times": _ratio(sum(number >= 100 for number in uses), vocab_size),
    }


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
