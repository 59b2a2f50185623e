"""What a stage says is shown as it is meant, and can do nothing to whoever reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.domain.events import Log, Progress, decode, encode
from workbench.pipeline.plain import plain


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain text, näive 日本 🦀", "plain text, näive 日本 🦀"),
        ("\x1b[1;31merror\x1b[0m: x", "error: x"),
        ("\x1b]0;a title\x07done", "done"),
        ("\x1b]8;;file:///etc\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2J\x1b[Hgone", "gone"),
        (" 10 %\r 20 %\r100 %", "100 %"),
        ("windows\r", "windows"),
        ("a\tb", "a\tb"),
        ("a\0b\x07", "a\\x00b\\x07"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("half \ud800", "half \\ud800"),
        ("\x1b", "\\x1b"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_a_line_is_shown_as_a_person_should_read_it(line: str, shown: str) -> None:
    assert plain(line) == shown


@given(st.text(st.sampled_from("\x1b[]0;31mJ\x07\\\r\n\t\0\u202e\ud800aé "), max_size=60))
def test_whatever_a_stage_says_becomes_one_line_that_can_be_written_anywhere(line: str) -> None:
    text = plain(line)
    text.encode()
    assert all(char == "\t" or char.isprintable() for char in text)
    assert plain(text) == text


@pytest.mark.parametrize(
    "line",
    [
        "[" * 60_000,
        '{"event": "progress", "done": 1e999}',
        '{"event": "progress", "done": NaN}',
        '{"event": "progress", "done": 1, "total": -1e999}',
        '{"event": "progress", "done": 1' + "0" * 400 + "}",
        '{"event": "progress", "done": 1, "rates": {"x": Infinity}}',
        '{"event": "progress", "done": 1, "rates": [1]}',
        '{"event": "progress", "done": "many"}',
        '{"event": ' * 20_000,
        '{"event": "log"}',
        '{"event": "dance", "step": 1}',
        '"progress"',
        "null",
        "\0\x01\x02",
        "",
    ],
)
def test_what_is_no_event_is_a_line_of_the_log(line: str) -> None:
    assert decode(line) == Log(line)


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
)
def test_an_event_comes_back(done: float, total: float | None, unit: str, rates: dict[str, float]) -> None:
    assert decode(encode(Progress(done, total, unit, rates))) == Progress(done, total, unit, rates)
