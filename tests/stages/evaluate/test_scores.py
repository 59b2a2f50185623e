"""Estimators against their definitions."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.stages.evaluate.scores import byte_entropy, compare, pass_at_k, rate, wilson


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_that_hold_a_pass(case):
    samples, passed, k = case
    draws = list(combinations([True] * passed + [False] * (samples - passed), k))
    assert pass_at_k(samples, passed, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@given(st.integers(1, 200), st.data())
def test_pass_at_1_is_the_rate_and_more_tries_never_hurt(samples, data):
    passed = data.draw(st.integers(0, samples))
    values = [pass_at_k(samples, passed, k) for k in range(1, samples + 1)]
    assert values[0] == pytest.approx(passed / samples)
    assert values == sorted(values)
    assert values[-1] == (1.0 if passed else 0.0)


@pytest.mark.parametrize(("samples", "passed", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_pass_at_k_refuses_what_cannot_be(samples, passed, k):
    with pytest.raises(AssertionError):
        pass_at_k(samples, passed, k)


@given(st.integers(1, 500).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_the_interval_holds_the_rate_and_stays_between_0_and_1(case):
    hits, of = case
    low, high = wilson(hits, of, 0.95)
    assert 0 <= low <= hits / of + 1e-6
    assert hits / of - 1e-6 <= high <= 1


def test_nothing_counted_is_no_rate_rather_than_nought():
    assert rate([]) is None
    assert wilson(0, 0, 0.95) is None


OPTIONS = {"seed": 0, "resamples": 300, "confidence": 0.95}


def test_a_clear_gain_is_an_improvement_whichever_way_is_up():
    before = {str(n): (0.1 * (n % 3), 1.0) for n in range(40)}
    after = {str(n): (0.1 * (n % 3) + 0.5, 1.0) for n in range(40)}
    assert compare("compile_rate", before, after, lower_is_better=False, **OPTIONS).verdict == "improved"
    assert compare("bits_per_byte", before, after, lower_is_better=True, **OPTIONS).verdict == "worse"


def test_noise_and_equality_are_the_same():
    before = {str(n): (float(n % 2), 1.0) for n in range(40)}
    swapped = {str(n): (float((n + 1) % 2), 1.0) for n in range(40)}
    for after in (before, swapped):
        assert compare("compile_rate", before, after, lower_is_better=False, **OPTIONS).verdict == "same"


def test_an_effect_too_small_to_matter_is_the_same_however_certain():
    before = {str(n): (2.0, 1.0) for n in range(50)}
    after = {str(n): (1.9995, 1.0) for n in range(50)}
    assert compare("bits_per_byte", before, after, lower_is_better=True, **OPTIONS).verdict == "same"


def test_only_what_both_were_asked_counts():
    before = {"a": (1.0, 1.0), "b": (0.0, 1.0)}
    after = {"b": (1.0, 1.0), "c": (0.0, 1.0)}
    found = compare("compile_rate", before, after, lower_is_better=False, **OPTIONS)
    assert (found.previous, found.current, found.pairs, found.verdict) == (0.0, 1.0, 1, "too few")
    assert compare("compile_rate", {"a": (1, 1)}, {"b": (1, 1)}, lower_is_better=False, **OPTIONS) is None


def test_documents_are_weighted_by_their_bytes():
    before = {"small": (8.0, 1.0), "large": (99.0, 99.0)}
    found = compare("bits_per_byte", before, before, lower_is_better=True, **OPTIONS)
    assert found.previous == pytest.approx(107 / 100)


def test_the_bootstrap_is_seeded():
    before = {str(n): (float(n % 5), 1.0) for n in range(30)}
    after = {str(n): (float(n % 7), 1.0) for n in range(30)}
    first, again = (compare("compile_rate", before, after, lower_is_better=False, **OPTIONS) for _ in range(2))
    other = compare("compile_rate", before, after, lower_is_better=False, **{**OPTIONS, "seed": 1})
    assert first == again
    assert (other.low, other.high) != (first.low, first.high)


def test_byte_entropy_is_that_of_the_counts():
    assert byte_entropy(["aaaa"]) == 0.0
    assert byte_entropy(["ab", "ba"]) == 1.0
    assert byte_entropy([bytes(range(128)).decode()]) == 7.0
    assert byte_entropy(["abc"]) == byte_entropy(["c", "ba"])
