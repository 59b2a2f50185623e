"""Text comes back exactly, and control tokens never come out of text."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from workbench.domain.errors import Corrupt, NotFound, UserError
from workbench.domain.tokens import BEGIN, CONTROL, END, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, PAD, UNKNOWN
from workbench.tokens.tokenizer import Tokenizer

SPECIAL = (
    *CONTROL,
    UNKNOWN,
    BEGIN,
    END,
    PAD,
    "<0x41>",
    "\u2581",
    "\u2047",
    "\0",
    "\r\n",
    "  ",
    "\t\t",
    "\ufeff",
    "\ufffd",
)
TEXTS = st.lists(st.one_of(st.text(), st.sampled_from(SPECIAL), st.text("fn let{}();\n 0123")), max_size=8).map("".join)


@given(text=TEXTS)
def test_any_text_comes_back_exactly(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()


@given(text=TEXTS)
def test_control_tokens_never_come_out_of_text(tokenizer: Tokenizer, text: str) -> None:
    assert not set(tokenizer.ids.values()) & set(tokenizer.encode(text))


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\u2581")))
def test_decoding_agrees_with_sentencepiece(tokenizer: Tokenizer, text: str) -> None:
    independent = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    ids = tokenizer.encode(text)
    assert independent.EncodeAsIds(text) == ids
    assert independent.DecodeIds(ids) == tokenizer.decode(ids)


def test_control_tokens_stand_at_the_first_ids_and_have_no_text(tokenizer: Tokenizer) -> None:
    assert list(tokenizer.ids.values()) == list(range(4 + len(CONTROL)))
    assert tokenizer.decode(tokenizer.ids.values()) == ""


def test_digits_and_line_ends_are_tokens_of_their_own(tokenizer: Tokenizer) -> None:
    pieces = [tokenizer.piece(id) for id in tokenizer.encode("12\n\n\t7")]
    assert pieces == ["1", "2", "\n", "\n", "\t", "7"]


def test_bytes_that_are_no_text_become_replacement_characters(tokenizer: Tokenizer) -> None:
    crab = tokenizer.encode("🦀")
    assert tokenizer.decode(crab[:-1]).startswith("\ufffd")


def test_a_fill_in_the_middle_prompt_begins_a_document_and_ends_where_the_middle_goes_on(tokenizer: Tokenizer) -> None:
    begin, pre, suf, mid = (tokenizer.ids[name] for name in (BEGIN, FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE))
    a, b = tokenizer.encode("fn a() {"), tokenizer.encode("}\n")
    assert tokenizer.fim_prompt("fn a() {", "}\n") == [begin, pre, *a, suf, *b, mid]
    assert tokenizer.fim_prompt("fn a() {", "}\n", "spm") == [begin, pre, suf, *b, mid, *a]
    with pytest.raises(UserError, match="pms"):
        tokenizer.fim_prompt("", "", "pms")


def test_a_tokenizer_is_loaded_from_its_file_or_folder(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
    assert Tokenizer.load(tmp_path).sha256 == Tokenizer.load(tmp_path / "tokenizer.model").sha256 == tokenizer.sha256


def test_a_missing_or_broken_file_is_said_so(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"tokenizer\.model"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.model[:100])
    with pytest.raises((Corrupt, UserError)):
        Tokenizer.load(tmp_path)
