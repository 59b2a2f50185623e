"""Copies: signatures beside exact Jaccard similarity, groups that no order changes."""

from __future__ import annotations

import math
import random
import re

import pytest
from datasketch import MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.stages.filter import minhash
from workbench.stages.filter.duplicates import Candidate, exact, near

TOKENS, PERMUTATIONS = 5, 256
GOLDEN = "a28664e91d77e154"


def jaccard(one: bytes, two: bytes) -> float:
    """Exact, on sets of five tokens in a row."""

    def grams(text: bytes) -> set[tuple[bytes, ...]]:
        words = re.findall(rb"[A-Za-z0-9_]+", text)
        return {tuple(words[n : n + TOKENS]) for n in range(len(words) - TOKENS + 1)}

    a, b = grams(one), grams(two)
    return len(a & b) / len(a | b) if a | b else 0.0


def words(seed: int, count: int = 600) -> list[str]:
    generator = random.Random(seed)
    return [f"w{generator.randrange(10**6)}" for _ in range(count)]


def changed(text: list[str], share: float, seed: int = 1) -> list[str]:
    """The last ``share`` of the words is another's: the similarity falls evenly."""
    kept = round(len(text) * (1 - share))
    return text[:kept] + words(seed + 10**6, len(text) - kept)


def candidate(path: str, text: bytes, rank: int = 0) -> Candidate:
    import hashlib

    signature = minhash.signature(text, tokens=TOKENS, permutations=PERMUTATIONS)
    return Candidate(path, (rank, "a", path), hashlib.sha256(text).hexdigest(), signature)


def dropped(candidates: list[Candidate], threshold: float = 0.7) -> set[str]:
    return set(near(candidates, threshold=threshold, permutations=PERMUTATIONS))


def estimate(one: bytes, two: bytes) -> float:
    import numpy as np

    a, b = (np.frombuffer(minhash.signature(t, tokens=TOKENS, permutations=PERMUTATIONS), "<u4") for t in (one, two))
    return float((a == b).mean())


@settings(max_examples=40)
@given(st.floats(0.0, 1.0), st.integers(0, 1000))
def test_signatures_estimate_the_exact_similarity(share: float, seed: int):
    one = words(seed)
    first, second = " ".join(one).encode(), " ".join(changed(one, share, seed)).encode()
    assert abs(estimate(first, second) - jaccard(first, second)) < 0.15  # 5 standard deviations at 256 permutations


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.08])
def test_copies_well_above_the_threshold_are_found(share: float):
    for seed in range(10):
        one = words(seed)
        first, second = " ".join(one).encode(), (" ".join(changed(one, share, seed)) + " end").encode()
        assert jaccard(first, second) > 0.8
        assert dropped([candidate("a/1", first), candidate("a/2", second)]) == {"a/2"}


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_texts_well_below_the_threshold_are_kept(share: float):
    for seed in range(10):
        one = words(seed)
        first, second = " ".join(one).encode(), " ".join(changed(one, share, seed)).encode()
        assert jaccard(first, second) < 0.6
        assert dropped([candidate("a/1", first), candidate("a/2", second)]) == set()


def test_what_the_index_proposes_is_measured_before_it_is_dropped():
    for seed in range(40):
        one = words(seed)
        first, second = " ".join(one).encode(), " ".join(changed(one, 0.24, seed)).encode()
        assert 0.58 < jaccard(first, second) < 0.65
        assert (estimate(first, second) >= 0.7) is bool(dropped([candidate("a/1", first), candidate("a/2", second)]))


def pair(similarity: float, seed: int, size: int = 700) -> tuple[bytes, bytes]:
    """Two texts of ``size`` shingles each, all distinct, whose Jaccard similarity is as near to ``similarity`` as whole
    shingles can be: so many of them in common, c / (2 * size - c)."""
    common = round(2 * size * similarity / (1 + similarity))
    one = [f"a{seed}_{n}" for n in range(size + TOKENS - 1)]
    other = one[: common + TOKENS - 1] + [f"b{seed}_{n}" for n in range(size - common)]
    return " ".join(one).encode(), " ".join(other).encode()


def chance(similarity: float) -> float:
    """That 25 bands of 10 propose a pair, times that at least 0.7 of its 256 values agree."""
    agree = sum(
        math.comb(PERMUTATIONS, n) * similarity**n * (1 - similarity) ** (PERMUTATIONS - n) for n in range(180, 257)
    )
    return (1 - (1 - similarity**10) ** 25) * agree


# What 25 bands of 10 give: nothing below the threshold, half of half at it, all well above it. Found of 200, with room
# for other shingles; here 0, 0, 50, 149, 191, 200, 200.
RECALL = {
    0.5: (0, 0),
    0.6: (0, 2),
    0.7: (36, 70),
    0.75: (134, 164),
    0.8: (180, 198),
    0.85: (197, 200),
    0.9: (200, 200),
}


@pytest.mark.parametrize("similarity", RECALL)
def test_of_pairs_of_a_known_similarity_so_many_are_found(similarity: float):
    pairs = [pair(similarity, seed) for seed in range(200)]
    assert all(abs(jaccard(*both) - similarity) < 0.001 for both in pairs[:3])
    candidates = [candidate(f"a/{n:03d}-{m}", text) for n, both in enumerate(pairs) for m, text in enumerate(both)]
    found = near(candidates, threshold=0.7, permutations=PERMUTATIONS)
    least, most = RECALL[similarity]
    assert least <= len(found) <= most, f"{len(found)} of 200 at {similarity}; by chance {chance(similarity) * 200:.0f}"
    # Never a text of another pair.
    assert all(drop.detail == f"like {path[:-1]}0" and path.endswith("1") for path, drop in found.items())


def test_the_bands_are_those_that_the_recall_was_measured_with():
    index = MinHashLSH(threshold=0.7, num_perm=PERMUTATIONS)
    assert (index.b, index.r) == (25, 10)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.03, 0.2, 0.6])), max_size=10), st.randoms())
def test_what_is_dropped_does_not_depend_on_the_order_of_the_files(about: list[tuple[int, float]], shuffler):
    texts = [" ".join(changed(words(seed, 150), share, n)).encode() for n, (seed, share) in enumerate(about)]
    candidates = [candidate(f"a/{n}", text, rank=n % 2) for n, text in enumerate(texts)]
    other = list(candidates)
    shuffler.shuffle(other)
    assert near(candidates, threshold=0.7, permutations=PERMUTATIONS) == near(
        other, threshold=0.7, permutations=PERMUTATIONS
    )
    assert exact(candidates) == exact(other)


def test_signatures_are_what_they_have_always_been():
    """Golden: other values would change which files datasets hold."""
    import hashlib

    signature = minhash.signature(b"fn main() { let a = b + c; println(a, b, c) }", tokens=5, permutations=256)
    assert hashlib.sha256(signature).hexdigest()[:16] == GOLDEN


@given(st.lists(st.sampled_from(["fn", "let", "x", "y_1", "é", "  ", "(", "\n", "0"]), max_size=40).map(" ".join))
def test_two_texts_of_the_same_tokens_have_one_signature(text: str):
    one = minhash.signature(text.encode(), tokens=3, permutations=32)
    spread = re.sub(r"\s+", " \n\t", text)
    assert minhash.signature(spread.encode(), tokens=3, permutations=32) == one


def test_a_shingle_is_an_order_of_tokens_not_a_set():
    assert list(minhash.shingles(b"a b c d e", 5)) != list(minhash.shingles(b"e d c b a", 5))
    assert len(minhash.shingles(b"a b c d e a b c d e", 5)) == 5
    assert len(minhash.shingles(b"a b c d", 5)) == 0


def test_short_texts_have_no_near_copies():
    assert dropped([candidate("a/1", b"fn a() {}"), candidate("a/2", b"fn a() { }")]) == set()


def test_a_threshold_of_one_keeps_all_but_exact_copies():
    text = " ".join(words(1)).encode()
    candidates = [candidate("a/1", text), candidate("a/2", text + b" x")]
    assert dropped(candidates, threshold=1.0) == set()


def test_a_chain_of_copies_is_one_group_whose_most_preferred_file_stays():
    one = words(5, 400)
    chain = [one, changed(one, 0.08, 1), changed(changed(one, 0.08, 1), 0.16, 2)]
    texts = [" ".join(each).encode() for each in chain]
    candidates = [candidate(f"a/{n}", text, rank=2 - n) for n, text in enumerate(texts)]
    found = near(candidates, threshold=0.7, permutations=PERMUTATIONS)
    assert set(found) == {"a/0", "a/1"}
    assert all(drop.detail == "like a/2" for drop in found.values())


def test_of_exact_copies_the_better_licence_stays_then_the_lesser_path():
    text = b"fn a() {}\n"
    found = exact([candidate("a/1", text, 1), candidate("a/3", text, 0), candidate("a/2", text, 0)])
    assert {path: drop.detail for path, drop in found.items()} == {"a/1": "same as a/2", "a/3": "same as a/2"}
