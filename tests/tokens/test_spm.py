"""The model file depends on text and sizes alone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from workbench.domain.errors import UserError
from workbench.tokens import spm
from workbench.tokens.tokenizer import Tokenizer

GOLDEN = "b21d2259cc2b88c107ac0f80bdf3297703c46a447a70f5a94610764d0b05fdef"


def train(corpus: list[str], vocab_size: int = 448, threads: int = 1) -> bytes:
    return spm.train(corpus, vocab_size=vocab_size, character_coverage=0.999, longest_piece=16, threads=threads)


def test_the_bytes_are_the_same_for_any_number_of_threads_and_folder(
    corpus: list[str], tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threads in (1, 2, 4):
        folder = tmp_path / str(threads)
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert train(corpus, threads=threads) == tokenizer.model
        assert os.listdir(folder) == []


def test_the_bytes_are_those_of_every_machine(tokenizer: Tokenizer) -> None:
    assert hashlib.sha256(tokenizer.model).hexdigest() == GOLDEN


def test_what_the_trainer_noted_of_threads_and_files_is_gone(corpus: list[str]) -> None:
    from sentencepiece import sentencepiece_model_pb2

    spec = sentencepiece_model_pb2.ModelProto.FromString(train(corpus, threads=4)).trainer_spec
    assert not spec.HasField("num_threads")
    assert not spec.HasField("model_prefix")
    assert not spec.input
    assert spec.byte_fallback


def test_text_that_the_trainer_cannot_take_is_left_out_and_not_its_line(corpus: list[str]) -> None:
    hostile = [*corpus, "zqzqzqzq\0zqzqzqzq\u2047zqzqzqzq\u2581zqzqzqzq\n" * 200, "x" * 3_000_000]
    tokenizer = Tokenizer(train(hostile))
    assert len(tokenizer.encode("zqzqzqzq")) <= 2


@pytest.mark.parametrize("vocab_size", [272, 100_000])
def test_a_size_that_does_not_fit_the_text_is_answered_with_what_to_change(corpus: list[str], vocab_size: int) -> None:
    with pytest.raises(UserError, match=str(vocab_size)) as caught:
        train(corpus, vocab_size)
    assert "vocab_size" in caught.value.hint
