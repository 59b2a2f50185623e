"""Choosing the next token from logits: our own, so that it is specified here and repeats bit for bit.

Penalty, top-k, top-p, min-p, temperature, in llama.cpp's order. The draw at each step is a pure function of the seed
and the step's number, so nothing depends on what was drawn before. Not here: logits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.domain.errors import Corrupt, UserError
from workbench.domain.generation import REPEAT_PENALTY_MAX, REPEAT_PENALTY_MIN, Sampling, is_unicode
from workbench.ports.inference import Score

PENALTY_WINDOW = 64  # tokens that the repeat penalty looks back on
_COLDEST = 1e-200  # a lower temperature chooses the same, and a float32 divided by this is still a number
_FINITE = np.finfo(np.float32)


def check(sampling: Sampling) -> None:
    """UserError for a value that has no meaning."""
    rules = (
        (0.0 <= sampling.temperature <= 10.0, "temperature", "between 0 (greedy) and 10"),
        (sampling.top_k >= 0, "top_k", "0 (off) or more"),
        (0.0 < sampling.top_p <= 1.0, "top_p", "above 0 and at most 1 (off)"),
        (0.0 <= sampling.min_p < 1.0, "min_p", "at least 0 (off) and below 1"),
        (
            REPEAT_PENALTY_MIN <= sampling.repeat_penalty <= REPEAT_PENALTY_MAX,
            "repeat_penalty",
            f"between {REPEAT_PENALTY_MIN:g} and {REPEAT_PENALTY_MAX:g}; 1 is off",
        ),
        (0 <= sampling.max_tokens < 1 << 31, "max_tokens", "0 or more, and a number of 31 bits"),
        (len(sampling.stop) <= 16, "stop", "at most 16 strings"),
        (all(0 < len(stop) <= 1024 for stop in sampling.stop), "stop", "strings of 1 to 1024 characters"),
        (all(map(is_unicode, sampling.stop)), "stop", "valid Unicode, without lone surrogates"),
    )
    for holds, name, allowed in rules:
        if not holds:
            raise UserError(f"{name} {getattr(sampling, name)!r} cannot be used", f"{name} is {allowed}")


def score(logits: Any, token: int, top: int) -> Score:
    """How likely ``token`` was, before sampling's cuts, and which ``top`` tokens were likeliest. ``logits``: float32
    [vocab]."""
    values = np.asarray(logits, dtype=np.float64)
    values = values - values.max()
    logs = values - np.log(np.exp(values).sum())
    best = _candidates(logs, top) if top else ()
    return Score(float(logs[token]), [(int(other), float(logs[other])) for other in best])


def uniform(seed: int, step: int) -> float:
    """The draw of one step: 53 bits of sha256 over seed and step, in [0, 1)."""
    digest = hashlib.sha256(f"workbench-sample/1:{seed}:{step}".encode()).digest()
    return float(int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53


def choose(logits: Any, sampling: Sampling, step: int, before: Sequence[int] = ()) -> int:
    """The next token. ``logits``: float32 [vocab]; ``before``: the tokens so far, for the penalty. Equal logits are
    ordered by token id. Corrupt for logits that are not numbers: those of the model, before anything is done to them,
    so that nothing that was asked is taken for damage."""
    best = int(np.argmax(logits))
    if not np.isfinite(logits[best]):
        raise Corrupt("the model's output is not a number", "the weights are damaged: run `workbench verify` on it")
    if sampling.repeat_penalty != 1.0:
        logits = _penalised(logits, sampling.repeat_penalty, before)
        best = int(np.argmax(logits))
    if sampling.temperature == 0.0:
        return best
    ids = _candidates(logits, sampling.top_k)
    values = logits[ids].astype(np.float64)
    shares = _softmax(values)
    keep = np.cumsum(shares) - shares < sampling.top_p  # the first whose sum reaches top_p is still in
    keep &= shares >= sampling.min_p * shares[0]
    ids, values = ids[keep], values[keep]
    shares = _softmax(values / max(sampling.temperature, _COLDEST))
    index = int(np.searchsorted(np.cumsum(shares), uniform(sampling.seed, step), side="right"))
    return int(ids[min(index, len(ids) - 1)])


def _penalised(logits: Any, penalty: float, before: Sequence[int]) -> Any:
    seen = np.unique(np.asarray(before[-PENALTY_WINDOW:], dtype=np.int64))
    changed = logits.copy()
    values = changed[seen].astype(np.float64)
    by = float(np.float32(penalty))
    values = np.where(values > 0, values / by, values * by)
    changed[seen] = np.clip(values, _FINITE.min, _FINITE.max)  # near the greatest float32 either could leave it
    return changed


def _candidates(logits: Any, top_k: int) -> Any:
    """Token ids from the likeliest on, at most ``top_k``."""
    size = len(logits)
    if 0 < top_k < size:
        limit = np.partition(logits, size - top_k)[size - top_k]
        ids = np.flatnonzero(logits >= limit)
        return ids[np.argsort(-logits[ids], kind="stable")][:top_k]
    return np.argsort(-logits, kind="stable")


def _softmax(values: Any) -> Any:
    powers = np.exp(values - values[0])  # sorted: the first is the greatest
    return powers / powers.sum()
