"""The sampler against its definition, written out naively, and against what a seed promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.domain.errors import Corrupt, UserError
from workbench.domain.generation import REPEAT_PENALTY_MAX, REPEAT_PENALTY_MIN, Sampling
from workbench.inference import sampler


def naive(logits: list[float], sampling: Sampling, step: int) -> int:
    """The same rules over plain lists."""
    order = sorted(range(len(logits)), key=lambda id: (-logits[id], id))
    order = order[: sampling.top_k] if sampling.top_k else order
    weights = [math.exp(logits[id] - logits[order[0]]) for id in order]
    shares = [weight / sum(weights) for weight in weights]
    kept, before = [], 0.0
    for id, share in zip(order, shares, strict=True):
        if before < sampling.top_p and share >= sampling.min_p * shares[0]:
            kept.append(id)
        before += share
    weights = [math.exp((logits[id] - logits[order[0]]) / sampling.temperature) for id in kept]
    draw, total = sampler.uniform(sampling.seed, step), 0.0
    for id, weight in zip(kept, weights, strict=True):
        total += weight / sum(weights)
        if draw < total:
            return id
    return kept[-1]


@settings(max_examples=300)
@given(
    st.lists(st.integers(-60, 60), min_size=2, max_size=50),
    st.integers(0, 60),
    st.sampled_from([0.1, 0.5, 0.9, 0.95, 1.0]),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.sampled_from([0.3, 1.0, 2.0]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 1000),
)
def test_it_chooses_as_its_definition_does(
    tenths: list[int], top_k: int, top_p: float, min_p: float, temperature: float, seed: int, step: int
) -> None:
    logits = np.array(tenths, dtype=np.float32) / 8  # exact, with ties
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
    assert sampler.choose(logits, sampling, step) == naive([float(value) for value in logits], sampling, step)


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.filterwarnings("error")
@settings(max_examples=300)
@given(
    st.lists(FINITE, min_size=1, max_size=20),
    st.sampled_from([0.0, 5e-324, 1e-308, 1e-40, 1e-8]) | st.floats(0, 10),
    st.sampled_from([5e-324, 1e-40]) | st.floats(0, 1, exclude_min=True),
    st.sampled_from([0.0, 5e-324]) | st.floats(0, 1, exclude_max=True),
    st.sampled_from([REPEAT_PENALTY_MIN, REPEAT_PENALTY_MAX]) | st.floats(REPEAT_PENALTY_MIN, REPEAT_PENALTY_MAX),
    st.sampled_from([0, 1, 10**40]),
)
def test_whatever_may_be_asked_a_token_is_chosen_from_logits_that_are_numbers(
    logits: list[float], temperature: float, top_p: float, min_p: float, penalty: float, top_k: int
) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repeat_penalty=penalty)
    sampler.check(sampling)
    assert 0 <= sampler.choose(np.float32(logits), sampling, 0, range(len(logits))) < len(logits)


@pytest.mark.parametrize("temperature", [5e-324, 1e-308, 1e-200])
def test_a_temperature_next_to_zero_takes_the_likeliest(temperature: float) -> None:
    for best in range(4):
        logits = np.full(4, -3.0, np.float32)
        logits[best] = np.nextafter(np.float32(-3), np.float32(0))
        assert sampler.choose(logits, Sampling(temperature=temperature, top_p=1.0, seed=best), 0) == best


def test_temperature_zero_takes_the_likeliest_and_the_lowest_id_of_equals() -> None:
    assert sampler.choose(np.float32([0, 3, 3, 1]), Sampling(seed=9), 4) == 1


def test_draws_follow_the_distribution() -> None:
    logits = np.log(np.float32([0.5, 0.3, 0.2]))
    sampling = Sampling(temperature=1.0, top_k=0, top_p=1.0, seed=1)
    counts = np.bincount([sampler.choose(logits, sampling, step) for step in range(4000)], minlength=3) / 4000
    assert np.abs(counts - [0.5, 0.3, 0.2]).max() < 0.03


def test_a_draw_depends_on_seed_and_step_alone() -> None:
    # Golden values: records that were written must repeat for ever.
    assert [round(sampler.uniform(7, step), 12) for step in range(3)] == GOLDEN
    assert len({sampler.uniform(seed, step) for seed in range(30) for step in range(30)}) == 900


GOLDEN = [0.011956857308, 0.051550156293, 0.890296643281]


def test_repeated_tokens_are_made_less_likely_within_the_window() -> None:
    logits, sampling = np.float32([2.0, 1.9, -1.0]), Sampling(repeat_penalty=1.5)
    assert sampler.choose(logits, sampling, 0, [0]) == 1
    assert sampler.choose(logits, sampling, 0, [0, *[2] * 64]) == 0
    assert logits.tolist() == np.float32([2.0, 1.9, -1.0]).tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_numbers_are_refused(value: float, temperature: float) -> None:
    with pytest.raises(Corrupt, match="not a number"):
        sampler.choose(np.full(5, value, np.float32), Sampling(temperature=temperature), 0)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=-0.1),
        Sampling(temperature=math.nan),
        Sampling(top_k=-1),
        Sampling(top_p=0.0),
        Sampling(top_p=1.1),
        Sampling(min_p=1.0),
        Sampling(repeat_penalty=0.0),
        Sampling(repeat_penalty=1e-300),
        Sampling(repeat_penalty=0.09),
        Sampling(repeat_penalty=10.1),
        Sampling(repeat_penalty=math.nan),
        Sampling(max_tokens=-1),
        Sampling(stop=("",)),
        Sampling(stop=("x",) * 17),
    ],
)
def test_values_without_meaning_are_refused_with_what_to_do(sampling: Sampling) -> None:
    with pytest.raises(UserError) as caught:
        sampler.check(sampling)
    assert caught.value.hint
