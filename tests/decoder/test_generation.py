"""Generation: the batch does not show, the seed does, and it ends where it should."""

from __future__ import annotations

import pytest
import torch

from workbench.decoder.generation import generate
from workbench.decoder.model import Decoder
from workbench.domain.errors import UserError
from workbench.domain.generation import Sampling

PROMPTS = [[1, 5, 6], [1, 2, 3, 4, 5, 6], [7] * 20, [9]]


def test_greedy_is_the_largest_logit_of_the_whole_text_so_far(decoder: Decoder) -> None:
    (answer,) = generate(decoder, [PROMPTS[0]], Sampling(max_tokens=8), stop=())
    text = list(PROMPTS[0])
    for id in answer:
        with torch.no_grad():
            assert int(decoder(torch.tensor([text]))[0, -1].argmax()) == id
        text.append(id)
    assert len(answer) == 8


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_row_is_the_same_alone_and_in_a_batch(decoder: Decoder, temperature: float) -> None:
    sampling = Sampling(max_tokens=10, temperature=temperature, seed=3)
    together = generate(decoder, PROMPTS, sampling, stop={2})
    alone = [generate(decoder, [prompt], sampling, stop={2}, rows=[row])[0] for row, prompt in enumerate(PROMPTS)]
    assert together == alone == generate(decoder, PROMPTS, sampling, stop={2}, batch=2)


def test_another_seed_gives_another_answer(decoder: Decoder) -> None:
    answers = [generate(decoder, PROMPTS, Sampling(temperature=1.5, seed=seed), stop=()) for seed in (0, 1)]
    assert answers[0] != answers[1]


def test_top_k_of_one_is_greedy(decoder: Decoder) -> None:
    sampled = Sampling(max_tokens=6, temperature=1.0, top_k=1, seed=5)
    assert generate(decoder, PROMPTS, sampled, stop=()) == generate(decoder, PROMPTS, Sampling(max_tokens=6), stop=())


def test_it_ends_before_a_stop_token(decoder: Decoder) -> None:
    (answer,) = generate(decoder, [PROMPTS[0]], Sampling(max_tokens=12), stop=())
    stop = answer[5]
    (shorter,) = generate(decoder, [PROMPTS[0]], Sampling(max_tokens=12), stop={stop})
    assert shorter == answer[: answer.index(stop)]


def test_it_ends_where_the_context_ends(decoder: Decoder) -> None:
    answers = generate(decoder, PROMPTS, Sampling(max_tokens=500), stop=())
    assert [len(prompt) + len(answer) for prompt, answer in zip(PROMPTS, answers, strict=True)] == [32] * 4


@pytest.mark.parametrize("prompt", [[], [1] * 32])
def test_a_prompt_that_does_not_fit_is_refused(decoder: Decoder, prompt: list[int]) -> None:
    with pytest.raises(UserError, match="prompt 0"):
        generate(decoder, [prompt], Sampling(), stop=())
