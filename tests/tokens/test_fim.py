"""Rearranged documents can be put back, and their arrangement depends on their key alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workbench.domain.tokens import BEGIN, END, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX
from workbench.tokens.fim import (
    Draws,
    FimPolicy,
    Span,
    decode_document,
    encode_document,
    encode_span,
    encode_spans,
    split,
    windows,
)
from workbench.tokens.tokenizer import Tokenizer

TEXTS = st.text(st.sampled_from("ab \n\t{}é🦀\u2581<|fim_prefix|>"), max_size=300)
KEYS = st.tuples(st.integers(0, 2**63), st.text("0123456789abcdef", max_size=64), st.integers(0, 50))


@given(text=TEXTS, size=st.integers(1, 50))
def test_windows_are_bounded_and_join_to_the_text(text: str, size: int) -> None:
    found = list(windows(text, size))
    assert "".join(found) == text
    assert all(0 < len(window) <= size for window in found)


@given(text=st.text(max_size=100), key=KEYS, rate=st.floats(0, 1))
def test_a_span_is_its_window_cut_in_three(text: str, key: tuple[int, str, int], rate: float) -> None:
    span = split(text, Draws(*key), rate)
    assert span.prefix + span.middle + span.suffix == text
    assert span == split(text, Draws(*key), rate)


@given(
    text=TEXTS,
    key=KEYS,
    spm_rate=st.floats(0, 1),
    rate=st.floats(0, 1),
    window=st.integers(1, 80),
    longest=st.integers(16, 100),
)
def test_an_encoded_document_comes_back_in_spans_that_fit(
    tokenizer: Tokenizer, text: str, key: tuple[int, str, int], spm_rate: float, rate: float, window: int, longest: int
) -> None:
    spans = encode_spans(tokenizer, text, FimPolicy(rate, spm_rate, window), Draws(*key), longest)
    if spans is None:
        spans = [encode_document(tokenizer, text)]
    else:
        assert all(len(span) <= longest for span in spans)
    assert decode_document(tokenizer, [id for span in spans for id in span]) == text


def test_the_layouts_are_those_of_the_prompts(tokenizer: Tokenizer) -> None:
    begin, end, pre, suf, mid = (tokenizer.ids[name] for name in (BEGIN, END, FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE))
    p, m, s = (tokenizer.encode(text) for text in ("let a", " = 1", ";\n"))
    psm = encode_span(tokenizer, Span("let a", " = 1", ";\n", "psm"))
    spm = encode_span(tokenizer, Span("let a", " = 1", ";\n", "spm"))
    assert psm == [begin, pre, *p, suf, *s, mid, *m, end] == [*tokenizer.fim_prompt("let a", ";\n", "psm"), *m, end]
    assert spm == [begin, pre, suf, *s, mid, *p, *m, end] == [*tokenizer.fim_prompt("let a", ";\n", "spm"), *m, end]


def test_a_plain_document_stands_between_begin_and_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("fn x() {}")
    assert encode_document(tokenizer, "fn x() {}") == [tokenizer.ids[BEGIN], *ids, tokenizer.ids[END]]


def test_rates_are_kept_over_many_documents(tokenizer: Tokenizer) -> None:
    policy = FimPolicy(rate=0.25, spm_rate=0.75, window=100)
    text = "fn x() {}\n" * 9
    arranged = [encode_spans(tokenizer, text, policy, Draws(0, str(number), 0), 512) for number in range(4000)]
    spans = [found[0] for found in arranged if found]
    is_spm = [span[2] == tokenizer.ids[FIM_SUFFIX] for span in spans]  # or PSM with an empty prefix: one in fifty
    assert 0.22 < len(spans) / 4000 < 0.28
    assert 0.70 < sum(is_spm) / len(spans) < 0.82


def test_a_window_that_takes_too_many_tokens_is_halved_until_it_fits(tokenizer: Tokenizer) -> None:
    text = "🦀" * 100  # four tokens each
    spans = encode_spans(tokenizer, text, FimPolicy(1.0, 0.5, 100), Draws(0, "a", 0), 128)
    assert spans is not None
    assert 4 <= len(spans) <= 8
    assert all(len(span) <= 128 for span in spans)


def test_cuts_are_uniform_over_characters() -> None:
    places = [Draws(7, str(number), 0).below(10) for number in range(5000)]
    assert all(400 < places.count(place) < 600 for place in range(10))


def test_a_document_is_arranged_anew_in_each_epoch_and_for_each_seed() -> None:
    drawn = {tuple(Draws(seed, "a", epoch).below(1 << 60) for _ in range(3)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(drawn) == 4


def test_the_draws_are_those_of_every_machine() -> None:
    draws = Draws(3, "document", 1)
    assert [draws.below(1000) for _ in range(6)] == GOLDEN_DRAWS


GOLDEN_DRAWS = [336, 20, 602, 830, 37, 764]
