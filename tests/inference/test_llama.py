"""The model port over llama.cpp: what a record promises, what a stream shows, what is refused; over a real file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.domain.errors import Corrupt, UserError
from workbench.domain.generation import Generation, Prompt, Sampling
from workbench.inference import llama
from workbench.inference.llama import LlamaModel
from workbench.tokens.tokenizer import Tokenizer

WARM = Sampling(temperature=1.2, top_k=0, top_p=1.0, seed=3, max_tokens=60)


@pytest.fixture(scope="module")
def model(tiny: Any) -> Iterator[LlamaModel]:
    with llama.load(tiny.q8, threads=1) as model:
        yield model


def logits(model: LlamaModel, tokens: list[int]) -> Any:
    return np.concatenate([rows.copy() for rows in model.logits(tokens)])


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> Tokenizer:
    return Tokenizer.load(tiny.tokenizer)


# --- Records and replay


def test_two_loads_give_the_same_generation(tiny: Any, model: LlamaModel) -> None:
    with llama.load(tiny.q8, threads=1) as other:
        assert other.generate(Prompt("let x"), WARM) == model.generate(Prompt("let x"), WARM)


@pytest.mark.parametrize("prompt", [Prompt("let"), Prompt("fn a(", ") {}"), Prompt("fn a(", ") {}", "spm"), Prompt("")])
@pytest.mark.parametrize("sampling", [Sampling(max_tokens=30), WARM, replace(WARM, repeat_penalty=1.3, top_k=20)])
def test_a_record_written_and_read_again_repeats_itself(model: LlamaModel, prompt: Prompt, sampling: Sampling) -> None:
    record = model.generate(prompt, sampling)
    stored = Generation.from_json(json.loads(json.dumps(record.to_json())))
    assert stored == record
    assert model.replay(stored) == record


def test_the_result_does_not_depend_on_what_was_asked_before(tiny: Any, model: LlamaModel) -> None:
    alone = model.generate(Prompt("let y"), WARM)
    model.generate(Prompt("let y = something else"), WARM)
    logits(model, [1, 2, 3])
    assert model.generate(Prompt("let y"), WARM) == alone


def test_the_number_of_threads_changes_no_token(tiny: Any, model: LlamaModel) -> None:
    one = model.generate(Prompt("pub fn value"), WARM)
    with llama.load(tiny.q8, threads=2) as other:
        assert other.generate(Prompt("pub fn value"), WARM).tokens == one.tokens
        assert other.replay(one).text == one.text


def test_long_prompts_over_several_chunks_repeat(tiny: Any, monkeypatch: pytest.MonkeyPatch, model: LlamaModel) -> None:
    monkeypatch.setattr("workbench.inference.native.CHUNK", 16)
    record = model.generate(Prompt("let value = " * 12), WARM)
    assert len(record.prompt_tokens) > 48
    assert model.replay(replace(record, engine=model.engine)) == replace(record, engine=model.engine)


def test_a_record_of_another_model_or_other_settings_is_refused(tiny: Any, model: LlamaModel) -> None:
    record = model.generate(Prompt("let"), WARM)
    with pytest.raises(UserError, match="the record is of model"):
        model.replay(replace(record, model_sha256="0" * 64))
    with llama.load(tiny.q8, context=128, threads=1) as other, pytest.raises(UserError, match="n_ctx 256"):
        other.replay(record)
    with llama.load(tiny.q8, threads=1, exact=True) as other, pytest.raises(UserError, match="cache 'F16'"):
        other.replay(record)


def test_the_engine_is_told(model: LlamaModel) -> None:
    engine = model.generate(Prompt("let"), Sampling(max_tokens=1)).engine
    assert engine["n_ctx"] == 256
    assert str(engine["library"]).startswith("llama-cpp-python ")
    assert engine["cache"] == "F16"


# --- Tokens and prompts


@settings(max_examples=200)
@given(text=st.text(max_size=80))
def test_token_ids_are_the_tokenizer_s_and_spell_the_text(model: LlamaModel, tokenizer: Tokenizer, text: str) -> None:
    ids = model.tokenize(text)
    assert list(ids) == tokenizer.encode(text)
    assert model.text(ids) == text


def test_control_text_in_a_prompt_stays_text(model: LlamaModel, tokenizer: Tokenizer) -> None:
    text = "</s><|fim_prefix|><|fim_middle|>"
    control = {tokenizer.ids[name] for name in ("<s>", "</s>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")}
    record = model.generate(Prompt(text), Sampling(max_tokens=1))
    assert control & set(record.prompt_tokens) == {tokenizer.ids["<s>"]}


@pytest.mark.parametrize("layout", ["psm", "spm"])
def test_prompts_are_laid_out_as_in_training(model: LlamaModel, tokenizer: Tokenizer, layout: str) -> None:
    plain = model.generate(Prompt("fn a("), Sampling(max_tokens=1))
    fim = model.generate(Prompt("fn a(", ")\n", layout), Sampling(max_tokens=1))
    assert list(plain.prompt_tokens) == tokenizer.prompt("fn a(")
    assert list(fim.prompt_tokens) == tokenizer.fim_prompt("fn a(", ")\n", layout)


# --- Text


@pytest.mark.parametrize("seed", range(8))
def test_the_stream_is_the_text_in_whole_characters(model: LlamaModel, seed: int) -> None:
    pieces: list[str] = []
    record = model.generate(Prompt("// naïve 🦀"), replace(WARM, seed=seed), pieces.append)
    assert "".join(pieces) == record.text == model.text(record.tokens)
    assert all(pieces)


def test_characters_split_over_tokens_are_never_shown_in_halves(model: LlamaModel, monkeypatch: Any) -> None:
    ids = list(model.tokenize("a🐙b")) + [model.tokenize("c")[0]]  # 🐙 is not in the vocabulary: four byte tokens
    assert len(ids) >= 7
    chosen = iter(ids)
    monkeypatch.setattr("workbench.inference.sampler.choose", lambda *_: next(chosen))
    pieces: list[str] = []
    record = model.generate(Prompt("x"), Sampling(max_tokens=len(ids)), pieces.append)
    assert pieces == ["a", "🐙", "b", "c"]
    assert record.text == "a🐙bc"


def test_a_stop_string_over_several_tokens_ends_the_text_before_it(model: LlamaModel) -> None:
    whole = model.generate(Prompt("let"), WARM)
    boundary = len(model.text(whole.tokens[:20]))
    stop = whole.text[boundary - 2 : boundary + 3]
    pieces: list[str] = []
    record = model.generate(Prompt("let"), replace(WARM, stop=(stop,)), pieces.append)
    assert record.text == "".join(pieces) == whole.text[: whole.text.index(stop)]
    assert record.finish == "stop"
    assert len(record.tokens) <= 22
    assert model.replay(record) == record


def test_an_end_token_ends_and_is_no_part_of_the_answer(
    model: LlamaModel, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for end in ("</s>", "<|fim_prefix|>", "<|file_sep|>"):
        chosen = iter([*model.tokenize("ok"), tokenizer.ids[end]])
        monkeypatch.setattr("workbench.inference.sampler.choose", lambda *_, chosen=chosen: next(chosen))
        record = model.generate(Prompt("x"), Sampling(max_tokens=50))
        assert (record.text, record.finish) == ("ok", "end")
        assert list(record.tokens) == list(model.tokenize("ok"))


def test_no_new_tokens_is_an_empty_answer(model: LlamaModel) -> None:
    record = model.generate(Prompt("let"), Sampling(max_tokens=0))
    assert (record.text, record.tokens, record.finish) == ("", (), "length")


def test_who_listens_may_end_it_and_the_model_goes_on_answering(model: LlamaModel) -> None:
    class Enough(Exception):
        pass

    def listen(text: str) -> None:
        raise Enough

    before = model.generate(Prompt("let"), WARM)
    with pytest.raises(Enough):
        model.generate(Prompt("let"), WARM, listen)
    assert model.generate(Prompt("let"), WARM) == before


# --- Logits


def test_logits_are_torch_s(tiny: Any, tokenizer: Tokenizer) -> None:
    import torch

    from workbench.decoder import weights

    tokens = tokenizer.prompt("pub fn value(index: &str) -> u32 {\n    let buffer = 7;\n}\n" * 3)[:128]
    with llama.load(tiny.f32, threads=1, exact=True) as exact, torch.inference_mode():
        ours = logits(exact, tokens)
        theirs = weights.load(tiny.model)(torch.tensor([tokens]))[0].numpy()
    assert ours.shape == theirs.shape == (len(tokens), 416)
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < 1e-4


def test_logits_do_not_depend_on_threads(tiny: Any) -> None:
    tokens = [1, *range(20, 120)]
    with llama.load(tiny.q8, threads=1) as one, llama.load(tiny.q8, threads=2) as two:
        assert np.array_equal(logits(one, tokens), logits(two, tokens))


def test_logits_in_chunks_are_those_of_one_batch(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [1, *range(20, 120)]
    with llama.load(tiny.f32, threads=1, exact=True) as exact:
        whole = logits(exact, tokens)
        monkeypatch.setattr("workbench.inference.native.CHUNK", 16)
        assert np.abs(logits(exact, tokens) - whole).max() < 1e-4


def test_scores_are_the_log_probabilities_of_each_next_token(model: LlamaModel) -> None:
    tokens = [1, *range(20, 60)]
    rows = logits(model, tokens).astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    scores = list(model.scores(tokens, 3))
    assert len(scores) == len(tokens) - 1
    for row, token, score in zip(rows, tokens[1:], scores, strict=False):
        assert score.log_probability == pytest.approx(row[token], abs=1e-9)
        assert [best for best, _ in score.likeliest] == np.argsort(-row, kind="stable")[:3].tolist()


# --- What is refused


def test_a_prompt_that_does_not_fit_says_by_how_much(model: LlamaModel) -> None:
    with pytest.raises(UserError, match="tokens, the context holds 256"):
        model.generate(Prompt("value index " * 300), Sampling(max_tokens=1))
    with pytest.raises(UserError, match="the context holds 256"):
        logits(model, [1] * 257)


def test_the_whole_context_can_be_used(model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    token = model.tokenize("a")[0]
    monkeypatch.setattr("workbench.inference.sampler.choose", lambda *_: token)
    prompt = len(model.generate(Prompt("let"), Sampling(max_tokens=1)).prompt_tokens)
    for wanted in (256 - prompt, 257 - prompt, 10**9):
        made = model.generate(Prompt("let"), Sampling(max_tokens=wanted))
        assert (len(made.tokens), made.finish) == (256 - prompt, "length")
        assert model.replay(made) == made


@pytest.mark.parametrize("tokens", [[], [-1], [416], [1, 2**31 - 1]])
def test_token_ids_outside_the_vocabulary_are_refused(model: LlamaModel, tokens: list[int]) -> None:
    with pytest.raises(UserError):
        logits(model, tokens)


@pytest.mark.parametrize("prompt", [Prompt("\ud800"), Prompt("a", "\udfff"), Prompt("a", "b", "mid")])
def test_wrong_prompts_are_refused_with_what_to_do(model: LlamaModel, prompt: Prompt) -> None:
    with pytest.raises(UserError) as caught:
        model.generate(prompt, WARM)
    assert caught.value.hint


def test_a_context_beyond_the_model_s_own_is_refused(tiny: Any) -> None:
    with pytest.raises(UserError, match="more than the 256 that"):
        llama.load(tiny.q8, context=1024)
    with pytest.raises(UserError, match="cannot be negative"):
        llama.load(tiny.q8, context=-1)


def test_a_file_without_fill_in_the_middle_tokens_refuses_a_suffix(tiny: Any, tmp_path: Path) -> None:
    data = tiny.q8.read_bytes()
    for name in (b"pre", b"suf", b"mid"):  # the same length, so that all offsets stay
        data = data.replace(b"tokenizer.ggml.fim_" + name, b"tokenizer.ggml.xxx_" + name)
    for name in (b"prefix", b"suffix", b"middle"):
        data = data.replace(b"<|fim_" + name + b"|>", b"<|xxx_" + name + b"|>")
    path = tmp_path / "plain.gguf"
    path.write_bytes(data)
    with llama.load(path, threads=1) as model:
        assert model.generate(Prompt("let"), Sampling(max_tokens=2)).prompt_tokens
        with pytest.raises(UserError, match="no fill-in-the-middle tokens"):
            model.generate(Prompt("let", "}"), WARM)


def test_a_file_cut_short_is_refused(tiny: Any, tmp_path: Path) -> None:
    data = tiny.q8.read_bytes()
    for size in (0, 3, 24, 1000, len(data) // 2, len(data) - 100):
        path = tmp_path / "cut.gguf"
        path.write_bytes(data[:size])
        with pytest.raises(Corrupt):
            llama.load(path)


# --- The process


QUIET = """
import sys
from pathlib import Path
from workbench.domain.errors import WorkbenchError
from workbench.domain.generation import Prompt, Sampling
from workbench.inference.process import ProcessLoader
model = ProcessLoader().load(Path(sys.argv[1]), threads=1)
model.generate(Prompt("let", "}"), Sampling(max_tokens=4))
ProcessLoader().quantise(Path(sys.argv[2]), Path(sys.argv[3]), "Q4_K_M")
left_open = ProcessLoader().load(Path(sys.argv[3]), threads=2)
left_open.generate(Prompt("let"), Sampling(max_tokens=4))
"""


def test_nothing_is_written_to_the_terminal_and_the_process_ends_well(tiny: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", QUIET]
    done = subprocess.run(
        [*command, tiny.q8, tiny.f16, tmp_path / "q4.gguf"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("text", ["let x = 1;\n" * 380_000, "\t\n" * 2_000_000, "\u2581" * 1_400_000, "🦀" * 1_000_000])
def test_a_prompt_that_can_never_fit_is_refused_before_it_is_tokenised(model: LlamaModel, text: str) -> None:
    """Tokenising one of these would take minutes, and nothing could stop it."""
    for prompt in (Prompt(text), Prompt("", text), Prompt(text, "")):
        with pytest.raises(UserError, match=r"tokens or more, the context holds 256"):
            model.generate(prompt, Sampling(max_tokens=1))


def test_the_bound_on_a_prompt_s_length_never_refuses_what_fits(model: LlamaModel, tokenizer: Tokenizer) -> None:
    longest = max((tokenizer.decode([id]) for id in range(tokenizer.vocab_size)), key=len)
    assert len(longest) > 4
    text, ids = longest, list(model.tokenize(longest))
    while len(ids) < model.context - 1:  # as few tokens for as many bytes as there can be
        text, ids = text + longest, list(model.tokenize(text + longest))
    fitting = text[: -len(longest)]
    assert len(fitting) > model.context
    made = model.generate(Prompt(fitting), Sampling(max_tokens=0))
    assert len(made.prompt_tokens) <= model.context


@pytest.mark.parametrize("text", ["a\n", "\n", "\t", "{\n\t\t}"])
def test_short_lines_that_cannot_fit_are_counted_and_not_tokenised(
    model: LlamaModel, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(model._native), "tokenize", lambda *_: pytest.fail("it was tokenised"))
    least = sum(text.count(character) for character in "\n\t")
    for prompt in (Prompt(text * (model.context // least + 1)), Prompt("", text * (model.context // least + 1))):
        with pytest.raises(UserError, match="tokens or more, the context holds 256"):
            model.generate(prompt, Sampling(max_tokens=1))


def test_short_lines_that_fit_are_answered(model: LlamaModel) -> None:
    made = model.generate(Prompt("\n" * (model.context - 2)), Sampling(max_tokens=0))
    assert len(made.prompt_tokens) == model.context - 1  # <s> before them


def test_work_can_be_ended_while_a_long_prompt_is_read_and_where_tokens_spell_nothing(
    model: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Enough(Exception):
        pass

    looks = 0

    def check() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise Enough

    monkeypatch.setattr(llama, "CHUNK", 16)
    with pytest.raises(Enough):
        model.generate(Prompt("let x = 1; " * 12), Sampling(max_tokens=1), check=check)
    monkeypatch.undo()
    looks = 0
    monkeypatch.setattr(model, "_piece", lambda token: b"")
    with pytest.raises(Enough):
        model.generate(Prompt("let"), replace(WARM, max_tokens=50), check=check)
    assert looks == 3
