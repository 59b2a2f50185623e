"""Words of others as a terminal shows them: nothing of them is obeyed, nothing is turned round, nothing is lost."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.domain.printable import one_line, printable, printable_json

OBEYED = [
    "\x1b[31m", "\x1b]0;title\x07", "\x1b]8;;http://example.org\x1b\\", "\x9b5m", "\x9d0;t\x9c", "\r", "\b", "\0",
    "\x7f", "\u202e", "\u2066", "\u200b", "\ufeff", "\u2028", "\u061c", "\U000e0041", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("sign", OBEYED)
def test_what_a_terminal_would_obey_is_shown_as_an_escape(sign: str) -> None:
    text = printable(f"a{sign}b")
    assert text.isprintable()
    assert text.isascii()
    assert len(text) > len(f"a{sign}b")


def test_letters_of_all_scripts_newlines_and_tabs_stay() -> None:
    text = "é ß 漢字 עברית 👍 \u00a0\n\tx"
    assert printable(text) == text
    assert one_line(text) == text.replace("\n", " ")


@given(st.text(st.characters() | st.sampled_from("".join(OBEYED))))
def test_no_text_holds_anything_that_is_obeyed_and_all_of_it_can_be_written(text: str) -> None:
    for shown in (printable(text), one_line(text)):
        shown.encode()
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown if c not in "\t\n")
    assert "\n" not in one_line(text)


@given(st.text(st.characters() | st.sampled_from("".join(OBEYED))))
def test_json_means_the_same(text: str) -> None:
    for ascii_only in (False, True):
        shown = printable_json(json.dumps({text: [text]}, ensure_ascii=ascii_only, indent=1))
        assert json.loads(shown) == {text: [text]}
        assert printable(shown) == shown
