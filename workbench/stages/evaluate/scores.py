"""Estimators: pass@k, intervals of a rate, a paired bootstrap, and what they say of two versions. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import NormalDist
from typing import Any

import numpy as np

from workbench.stages.evaluate.tasks import rank

FEWEST_PAIRS = 8  # below this a comparison says nothing
SMALLEST_EFFECT = {"bits_per_byte": 0.002}  # a difference nobody would notice is none, however certain


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The chance that one of ``k`` samples passes, drawn without replacement from ``samples`` of which ``passed`` pass:
    1 - C(n-c, k) / C(n, k), unbiased (Chen et al. 2021, arXiv 2107.03374)."""
    assert 0 <= passed <= samples and 1 <= k <= samples  # noqa: PT018
    return 1.0 - comb(samples - passed, k) / comb(samples, k)


def byte_entropy(texts: Iterable[str]) -> float:
    """Bits per byte of texts to whom knows nothing but how often each of their bytes comes (Shannon 1948)."""
    counts: Counter[int] = Counter()
    for text in texts:
        counts.update(text.encode())
    size = sum(counts.values())
    return round(-sum(count / size * math.log2(count / size) for _, count in sorted(counts.items())), 6) + 0.0


def rate(hits: Sequence[bool]) -> float | None:
    """None, not zero, when there is nothing to count."""
    return round(sum(hits) / len(hits), 6) if hits else None


def wilson(hits: int, of: int, confidence: float) -> tuple[float, float] | None:
    """The score interval of a rate (Wilson 1927)."""
    if of == 0:
        return None
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (hits + z * z / 2) / (of + z * z)
    half = z / (of + z * z) * math.sqrt(hits * (of - hits) / of + z * z / 4)
    return round(max(0.0, centre - half), 6), round(min(1.0, centre + half), 6)


@dataclass(frozen=True)
class Compared:
    """One figure of this version beside the previous one, over the tasks that both were given."""

    metric: str
    previous: float
    current: float
    delta: float
    low: float
    high: float
    pairs: int
    verdict: str  # improved, same, worse, or too few

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Measured = Mapping[str, tuple[float, float]]  # id -> (sum, weight): the figure is sum of sums over sum of weights


def compare(
    metric: str,
    previous: Measured,
    current: Measured,
    *,
    lower_is_better: bool,
    seed: int,
    resamples: int,
    confidence: float,
) -> Compared | None:
    """Paired by id: the interval is a percentile bootstrap over pairs. None when there is nothing in common."""
    shared = sorted(previous.keys() & current.keys())
    if not shared:
        return None
    before = np.array([previous[id] for id in shared], np.float64)
    after = np.array([current[id] for id in shared], np.float64)
    old, new = _figure(before), _figure(after)
    generator = np.random.Generator(np.random.Philox(int(rank("bootstrap", seed, metric)[:16], 16)))
    deltas = np.empty(resamples)
    for index in range(resamples):
        drawn = generator.integers(0, len(shared), len(shared))
        deltas[index] = _figure(after[drawn]) - _figure(before[drawn])
    tail = (1 - confidence) / 2
    low, high = (round(float(np.quantile(deltas, q)), 6) for q in (tail, 1 - tail))
    delta = round(new - old, 6)
    return Compared(
        metric=metric,
        previous=round(old, 6),
        current=round(new, 6),
        delta=delta,
        low=low,
        high=high,
        pairs=len(shared),
        verdict=_verdict(metric, delta, low, high, len(shared), lower_is_better),
    )


def _figure(rows: np.ndarray) -> float:
    return float(rows[:, 0].sum() / rows[:, 1].sum())


def _verdict(metric: str, delta: float, low: float, high: float, pairs: int, lower_is_better: bool) -> str:
    if pairs < FEWEST_PAIRS:
        return "too few"
    if low <= 0 <= high or abs(delta) < SMALLEST_EFFECT.get(metric, 0.0):
        return "same"
    return "improved" if (delta < 0) == lower_is_better else "worse"
