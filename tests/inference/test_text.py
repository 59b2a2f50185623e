"""Bytes to streamed text: whole characters only, nothing of a stop string, the same however the bytes were cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from workbench.inference.text import TextStream


def stream(pieces: list[bytes], stop: list[str]) -> tuple[list[str], TextStream]:
    text = TextStream(stop)
    given = []
    for piece in pieces:
        given.append(text.feed(piece))
        if text.stopped:
            break
    given.append(text.end())
    return given, text


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


@given(st.text(max_size=60), st.lists(st.integers(0, 200), max_size=20))
def test_text_comes_back_whole_and_in_whole_characters(text: str, places: list[int]) -> None:
    given, made = stream(cut(text.encode(), places), [])
    assert "".join(given) == made.text == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in given)


@given(
    st.text("ab\n🦀", max_size=40), st.text("ab\n🦀", min_size=1, max_size=4), st.lists(st.integers(0, 99), max_size=9)
)
def test_text_ends_before_the_stop_string_wherever_tokens_are_cut(text: str, stop: str, places: list[int]) -> None:
    given, made = stream(cut(text.encode(), places), [stop])
    assert "".join(given) == made.text == text.split(stop)[0]
    assert made.stopped == (stop in text)


@given(st.binary(max_size=60), st.lists(st.integers(0, 200), max_size=20))
def test_bytes_that_are_no_text_become_replacement_characters(data: bytes, places: list[int]) -> None:
    given, made = stream(cut(data, places), [])
    assert "".join(given) == made.text == data.decode("utf-8", "replace")


def test_a_character_split_over_four_tokens_comes_at_the_last() -> None:
    given, _ = stream([bytes([byte]) for byte in "🦀".encode()], [])
    assert given == ["", "", "", "🦀", ""]


def test_what_may_begin_a_stop_string_is_held_back_and_given_when_it_does_not() -> None:
    given, _ = stream([b"a<", b"/s", b"x>"], ["</s>"])
    assert given == ["a", "", "</sx>", ""]


def test_nothing_comes_after_a_stop() -> None:
    text = TextStream(["."])
    assert text.feed(b"one. two") == "one"
    assert text.feed(b" three") == ""
    assert text.end() == ""


def test_the_earliest_of_several_stops_ends_it() -> None:
    _, made = stream([b"abcdef"], ["ef", "cd"])
    assert made.text == "ab"
