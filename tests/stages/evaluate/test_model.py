"""Bits and completions, against a plain computation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from workbench.decoder import weights
from workbench.domain.generation import Sampling
from workbench.stages.evaluate.model import Batch, Request, Text, batches, bits, compute
from workbench.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def decoder(model: Path):
    return weights.load(model)


@pytest.fixture(scope="module")
def words(tokenizer: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer)


@pytest.mark.parametrize(
    "text", ["x", "fn main() { let größe = 1; }", "pub fn f() -> u32 { 1 }\n" * 60, "日本語\n" * 200]
)
def test_each_token_is_predicted_once_from_what_precedes_it(decoder, words, text: str):
    found = bits(decoder, words, Text("d", text))
    ids = words.prompt(text)
    size = decoder.config.max_position_embeddings
    plain = 0.0
    with torch.inference_mode():
        for start in range(0, len(ids) - 1, size):
            window = ids[start : start + size + 1]
            chances = decoder(torch.tensor([window[:-1]])).double().log_softmax(-1)[0]
            plain -= sum(float(chances[at, id]) for at, id in enumerate(window[1:]))
    assert found.bits == pytest.approx(plain / math.log(2), abs=0.01)
    assert (found.tokens, found.bytes) == (len(ids) - 1, len(text.encode()))


def test_a_model_that_knows_nothing_needs_the_logarithm_of_its_vocabulary(decoder, words):
    state = {name: torch.zeros_like(value) for name, value in decoder.state_dict().items()}
    from workbench.decoder.model import Decoder

    blank = Decoder(decoder.config)
    blank.load_state_dict(state)
    found = bits(blank.eval(), words, Text("d", "let a = 1;\n" * 50))
    assert found.bits / found.tokens == pytest.approx(math.log2(decoder.config.vocab_size), abs=1e-4)


def request(number: int, layout: str = "psm", row: int = 0) -> Request:
    return Request(f"t{number}/{layout}/0", f"fn f{number}() {{\n    let a = ", ";\n}\n", layout, row)


def test_completions_are_replayable_and_follow_their_row(model: Path, tokenizer: Path):
    sampling = Sampling(temperature=1.0, top_k=0, top_p=1.0, seed=5, max_tokens=12)
    batch = Batch((request(1, row=1), request(1, row=2), request(1, row=1)), sampling)
    first, again = (compute(batch, model=model, tokenizer=tokenizer) for _ in range(2))
    assert first == again
    assert first[0].text == first[2].text != first[1].text
    assert all(found.tokens <= 12 and found.ended == (found.tokens < 12) for found in first)


def test_greedy_completions_do_not_depend_on_the_seed(model: Path, tokenizer: Path):
    texts = {
        compute(Batch((request(1),), Sampling(seed=seed, max_tokens=8)), model=model, tokenizer=tokenizer)[0].text
        for seed in (1, 2)
    }
    assert len(texts) == 1


def test_batches_do_not_depend_on_the_order_of_the_requests():
    requests = [request(number) for number in range(40)]
    lengths = [number % 7 for number in range(40)]
    sampling = Sampling()
    forward = list(batches(requests, sampling, lengths))
    assert forward == list(batches(requests[::-1], sampling, lengths[::-1]))
    assert sorted(r.key for batch in forward for r in batch.requests) == sorted(r.key for r in requests)
    assert max(len(batch.requests) for batch in forward) == 16


def test_the_number_of_threads_is_given_back(model: Path, tokenizer: Path):
    before = torch.get_num_threads()
    compute(Text("d", "fn"), model=model, tokenizer=tokenizer)
    assert torch.get_num_threads() == before
