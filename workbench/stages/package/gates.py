"""What must hold before a model is released, and how far each quantisation is from the weights it was made of.

Each gate is a function that raises StageFailed with the first thing that differs, or returns what it saw. Numbers are
rounded, so that they say what was seen and no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.domain.errors import StageFailed, UserError
from workbench.domain.tokens import BEGIN, CONTROL, END
from workbench.ports.inference import LoadedModel
from workbench.tokens.tokenizer import Tokenizer

TOLERANCE = 1e-4  # greatest difference of a logit from torch's, both in float32
AWKWARD = (
    "",
    " ",
    "  \t\t\n\n\r\n  ",
    "\0\x01\x7f\ufeff",
    'fn naïve() -> &\'static str { "日本語 🦀 é e\u0301 \u200d\U0001f469\u200d\U0001f4bb" }',
    "\u2581blank\u2581\u2581",
    "a\u2581 b \u2581",
    "\ud7ff\ue000\uffff\U0010ffff",
    "<0x41><0x0A>",
    "<unk> <s> </s> <pad>",
    f'let s = "{BEGIN}{END}{"".join(CONTROL)}";',
    " ".join(CONTROL),
    "1234567890" * 20,
    "a" * 500,
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0645\u0631\u062d\u0628\u0627",
)


@dataclass(frozen=True)
class Divergence:
    """How a file's next-token distributions differ from the F32 weights' over held-out text."""

    kl_mean: float  # nats
    argmax_agreement: float  # share of positions
    perplexity: float
    perplexity_delta: float  # against the F32 weights

    def to_json(self) -> dict[str, float]:
        return dict(self.__dict__)


def snippets(texts: Iterable[str], count: int) -> list[str]:
    """``count`` held-out texts of different lengths, cut anywhere, and the awkward ones."""
    cut = []
    for number, text in enumerate(texts):
        if number == count:
            break
        start = (number * 37) % max(1, len(text) - 200)
        cut.append(text[start : start + 50 + 40 * (number % 50)])
    return [*AWKWARD, *cut]


def same_tokens(model: LoadedModel, tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, int]:
    """The file's own tokenizer gives SentencePiece's ids, and they spell the text again."""
    tokens = 0
    control = {tokenizer.ids[name] for name in (BEGIN, END, *CONTROL)}
    for text in texts:
        theirs, ours = list(model.tokenize(text)), tokenizer.encode(text)
        if theirs != ours:
            at = next(
                (i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours))
            )
            raise StageFailed(
                f"the GGUF's tokenizer differs from SentencePiece's at token {at} of {text[:40]!r}: "
                f"{theirs[at : at + 4]} instead of {ours[at : at + 4]}",
                "the tokenizer's pieces, scores or types were not exported as they are",
            )
        if control & set(theirs):
            raise StageFailed(f"text became a control token: {text[:40]!r}", "control tokens must be CONTROL pieces")
        if model.text(theirs) != text:
            raise StageFailed(f"the tokens of {text[:40]!r} spell another text", "the tokenizer must be lossless")
        tokens += len(theirs)
    return {"texts": len(texts), "tokens": tokens}


def windows(tokenizer: Tokenizer, texts: Iterable[str], count: int, length: int) -> list[list[int]]:
    """``count`` stretches of ``length`` tokens, each the beginning of a document; documents that are too short are
    passed over unless there are not enough others."""
    long, short = [], []
    for text in texts:
        ids = tokenizer.prompt(text)[:length]
        if len(ids) == length:
            long.append(ids)
        elif len(ids) > 2:
            short.append(ids)
        if len(long) == count:
            break
    found = (long + sorted(short, key=len, reverse=True))[:count]
    if not found:
        raise UserError("the dataset has no held-out text", "make the validation split larger")
    return found


def same_logits(exact: LoadedModel, reference: Any, stretches: Sequence[Sequence[int]]) -> dict[str, float]:
    """Logits of the F32 file with an F32 cache are torch's. ``reference``: tokens -> float32 [T, V]."""
    worst = 0.0
    for tokens in stretches:
        ours, theirs = np.asarray(reference(tokens)), np.asarray(exact.logits(tokens))
        if ours.shape != theirs.shape:
            raise StageFailed(
                f"torch gives logits of shape {ours.shape}, llama.cpp {theirs.shape}", "compare vocabularies"
            )
        difference = float(np.abs(ours.astype(np.float64) - theirs).max())
        if not difference <= TOLERANCE:  # also when it is not a number
            raise StageFailed(
                f"logits differ from torch's by {difference:.2g}, {TOLERANCE:g} is allowed",
                "a weight was exported wrongly (the order of q and k rows, the norm's epsilon, RoPE's base)",
            )
        worst = max(worst, difference)
    return {
        "windows": len(stretches),
        "tokens": sum(map(len, stretches)),
        "tolerance": TOLERANCE,
        "max_abs_difference": round_up(worst),
    }


def divergence(exact: LoadedModel, other: LoadedModel, stretches: Sequence[Sequence[int]]) -> Divergence:
    """Of ``other`` from ``exact``. StageFailed when it is not a number."""
    kl: list[Any] = []
    agreed: list[Any] = []
    nll_exact: list[Any] = []
    nll_other: list[Any] = []
    for tokens in stretches:
        p, q = (_log_softmax(np.asarray(model.logits(tokens), dtype=np.float64)) for model in (exact, other))
        kl.append((np.exp(p) * (p - q)).sum(axis=1))
        agreed.append(p.argmax(axis=1) == q.argmax(axis=1))
        following = np.asarray(tokens[1:])
        rows = np.arange(len(following))
        nll_exact.append(-p[rows, following])
        nll_other.append(-q[rows, following])
    plain, quantised = (math.exp(float(np.concatenate(nll).mean())) for nll in (nll_exact, nll_other))
    result = Divergence(
        kl_mean=rounded(float(np.concatenate(kl).mean())),
        argmax_agreement=rounded(float(np.concatenate(agreed).mean())),
        perplexity=rounded(quantised),
        perplexity_delta=rounded(quantised - plain),
    )
    if not all(math.isfinite(value) for value in result.to_json().values()):
        raise StageFailed("a quantisation's logits are not numbers", "look at the weights: some may be infinite")
    return result


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.3e}")


def round_up(value: float) -> float:
    """The next value of one significant digit that is not less."""
    if value == 0.0:
        return 0.0
    scale = 10.0 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / scale) * scale:.0e}")


def _log_softmax(logits: Any) -> Any:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
