"""The one reader of what others wrote: what it refuses, where it says the fault is, and that it stays linear."""

from __future__ import annotations

import json
import math
import time
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.domain import ids
from workbench.domain.errors import Corrupt, Refused
from workbench.domain.reading import (
    BadInput,
    Limits,
    Shape,
    UnknownFormat,
    anything,
    checked,
    flag,
    items,
    load_json,
    mapping,
    nullable,
    number,
    one_of,
    optional,
    parse_json,
    parse_toml,
    record,
    text,
    whole,
)


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class File:
    path: str
    size: int
    sha256: str
    chunks: int


@dataclass(frozen=True)
class Document:
    files: tuple[File, ...]
    colour: Colour
    rates: dict[str, float]
    note: str | None
    done: bool
    free: Any


FILE = record(
    File,
    path=text(least=1, most=8),
    size=whole(most=100),
    sha256=checked(text(), ids.digest),
    chunks=optional(whole(), 0),
)
DOCUMENT = record(
    Document,
    format=(1,),
    files=items(FILE, most=3),
    colour=one_of(Colour),
    rates=mapping(number(least=0), most=2),
    note=nullable(text()),
    done=flag(),
    free=anything(),
)
GOOD: dict[str, Any] = {
    "format": 1,
    "files": [{"path": "a", "size": 1, "sha256": "0" * 64}],
    "colour": "red",
    "rates": {"MB/s": 1},
    "note": None,
    "done": True,
    "free": {"any": [1, 2.5, "x"]},
}


def changed(path: str, value: Any) -> bytes:
    document = json.loads(json.dumps(GOOD))
    inner = document
    *above, last = path.split("/")
    for part in above:
        inner = inner[int(part) if part.isdigit() else part]
    inner[int(last) if last.isdigit() else last] = value
    return json.dumps(document).encode()


def told(act: Callable[[], Any]) -> str:
    """What BadInput says of it, if anything."""
    try:
        act()
    except BadInput as bad:
        return str(bad)
    return ""


def test_what_is_right_is_read_into_its_dataclass() -> None:
    read = load_json(json.dumps(GOOD).encode(), DOCUMENT, what="it")
    assert read == Document((File("a", 1, "0" * 64, 0),), Colour.RED, {"MB/s": 1}, None, True, GOOD["free"])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (changed("files/0/size", True), "files[0].size: True is not a whole number"),
        (changed("files/0/size", 1.9), "files[0].size: 1.9 is not a whole number"),
        (changed("files/0/size", 1.0), "files[0].size: 1.0 is not a whole number"),
        (changed("files/0/size", "1"), "files[0].size: '1' is not a whole number"),
        (changed("files/0/size", None), "files[0].size: None is not a whole number"),
        (changed("files/0/size", -1), "files[0].size: -1 is not within 0 and 100"),
        (changed("files/0/size", 101), "files[0].size: 101 is not within 0 and 100"),
        (changed("files/0/size", 1 << 64), "18446744073709551616 is beyond 64 bits"),
        (changed("files/0/size", math.nan), "NaN is not JSON"),
        (changed("files/0/size", math.inf), "Infinity is not JSON"),
        (changed("files/0/sha256", "F" * 64), "files[0].sha256: not a sha256 digest"),
        (changed("files/0/path", ""), "files[0].path: text of 0 characters"),
        (changed("files/0/path", 7), "files[0].path: 7 is not text"),
        (changed("files/0/more", 7), "files[0].more: no such field is known"),
        (changed("files/0", 7), "files[0]: 7 is not an object"),
        (changed("files", None), "files: None is not a list"),
        (changed("files", [1] * 4), "files: a list of 4, where 0 to 3"),
        (changed("colour", "blue"), "colour: 'blue' is not one of red"),
        (changed("colour", {}), "colour: an object of 0 is not one of red"),
        (changed("rates", {"a": "1"}), "rates.a: '1' is not a number"),
        (changed("rates", {"a b": True}), "rates['a b']: True is not a number"),
        (changed("rates", {"\x1b[31m": True}), "rates['\\x1b[31m']: True is not a number"),
        (changed("note", 1), "note: 1 is not text"),
        (changed("done", 1), "done: 1 is not true or false"),
        (changed("free", "\ud800"), "half a character"),
        (changed("format", 2), "format 2; this workbench reads format 1"),
        (changed("format", True), "format True; this workbench reads format 1"),
        (b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), "byte order mark"),
        (json.dumps(GOOD).encode("utf-16"), "not UTF-8"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice"),
        (b'{"a": %s}' % (b"9" * 4000), "a number of more than 64 characters"),
        (b'{"a": 1e999}', "1e999 is no finite number"),
        (b"[" * 33 + b"]" * 33, "nested deeper than 32"),
        (b"[" + b"1," * 100_001 + b"1]", "more than 100000 keys and values"),
        (b" " * ((1 << 20) + 1), "it has 1048577 bytes"),
        (b'{"a": "\xff"}', "not UTF-8 (byte 7)"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),  # a surrogate, encoded as no UTF-8 may be
        (b"{'a': 1}", "not JSON"),
        (b"", "not JSON"),
        (b"[]", "a list of 0 is not an object"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(data: bytes, says: str) -> None:
    with pytest.raises(Corrupt) as caught:
        load_json(data, DOCUMENT, what="the document")
    assert says in caught.value.what
    assert caught.value.what.isprintable()


def test_the_caller_chooses_the_error_and_an_unknown_format_says_what_to_do() -> None:
    with pytest.raises(Refused, match="the manifest cannot be read: "):
        load_json(b"1", DOCUMENT, what="the manifest", error=Refused)
    with pytest.raises(Corrupt, match="upgrade workbench"):
        load_json(changed("format", 9), DOCUMENT, what="the manifest")


def test_half_a_pair_is_refused_and_a_whole_pair_is_text() -> None:
    assert parse_json(rb'"\ud83d\ude00 \\ud800"') == "\N{GRINNING FACE} \\ud800"
    with pytest.raises(BadInput, match="half a character"):
        parse_json(rb'["\ud83d", "\ude00"]')


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"[a.b.c.d.e.f.g.h.i]", "nested deeper than 8"),
        (b"a.b.c.d.e.f.g.h.i = 1", "nested deeper than 8"),
        (b'"a"."b".c.\'d\'.e.f.g.h . i = 1', "nested deeper than 8"),
        (b"x = {a.b.c.d.e.f.g.h.i = 1}", "nested deeper than 8"),
        (b"x = [[[[[[[[[1]]]]]]]]]", "nested deeper than 8"),
        (b"[a.b.c.d]\n[a.b.c.d.e]\nf.g.h.i = 1", "nested too deep"),
        (b"x = 1979-05-27", "x: dates and times are not used"),
        (b"x = [1, {y = 07:32:00}]", "x[1].y: dates and times are not used"),
        (b"x = nan", "x: nan is no finite number"),
        (b"x = inf", "x: inf is no finite number"),
        (b"x = 9223372036854775807000", "x: 9223372036854775807000 is beyond 64 bits"),
        (b"x = " + b"9" * 4000, "more than 128 characters"),
        (b"x = 0x" + b"f" * 4000, "more than 128 characters"),
        (b"k" * 4000 + b" = 1", "more than 128 characters"),
        (b"x = 1\nx = 2", "not TOML"),
        (b'x = "\\ud800"', "not TOML"),
        (b"\xef\xbb\xbfx = 1", "byte order mark"),
        (b"x = '\xff'", "not UTF-8"),
        (b"x = 2021-02-30", "not TOML"),
        (b"x = 1\n" * 50_000, "bytes; 262144 at most"),
        (b"x=[" + b"1," * 30_000 + b"]", "more than 20000 keys and values"),
    ],
)
def test_toml_is_bounded_and_holds_what_json_holds(data: bytes, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_toml(data)
    assert says in str(caught.value)


def test_signs_in_strings_and_comments_count_for_nothing() -> None:
    signs = ".".join("a" * 20) + "[" * 20 + "1" * 200
    lines = [
        f'a = "{signs} \\" {signs}" # {signs}',
        f"b = '{signs}'",
        f'c = """{signs}\n"{signs}" ""{signs}""\\"""\n"""',
        f"d = '''{signs}\n''{signs}'''''",
        'e = """"""',
        "f = [1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 1.5]",
        f'"{signs}" = 1.5',
    ]
    source = "\n".join(lines)
    assert parse_toml(source.encode()) == tomllib.loads(source)


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b".".join(b"k%d" % n for n in range(9000)) + b"]\n" + b"\n".join(b"x%d=1" % n for n in range(9000)),
        b"\n".join(b"[a%d.b.c.d.e.f.g]" % n for n in range(9000)),
        b"\n".join(b"a%d.b.c.d.e.f.g.h=1" % n for n in range(2400)),
        b"[[a.b.c.d]]\n" * 4500,
        b"a={" * 60_000,
        b'"\\"' * 80_000 + b"\\",
        b"'''''" * 40_000,
        b'""""' * 50_000,
        b"a" * 250_000,
        b"." * 250_000,
        b"a=" + b"1_" * 120_000,
        b"#" * 250_000,
        b"a = [\n" + b"#\n" * 120_000,
        b"x = " + b"{a=1,b=[" * 4 + b"1," * 9000,
    ],
)
def test_toml_takes_no_longer_than_its_length_allows(data: bytes) -> None:
    start_s = time.process_time()
    with suppress(BadInput):
        parse_toml(data)
    assert time.process_time() - start_s < 2  # 16 s before; a tenth of a second on an idle machine


@pytest.mark.parametrize(
    "data",
    [
        b'"\\"' * 300_000 + b"\\",
        b'{"a":' * 200_000,
        b"[" * 1_000_000,
        b"1" * 1_000_000,
        b'"' * 999_999,
        b"{" + b",".join(b'"%d":1' % n for n in range(45_000)) + b"}",
        b"[" + b"1e9," * 90_000 + b"1]",
        b'["' + b"\\ud83d" * 150_000 + b'"]',
    ],
)
def test_json_takes_no_longer_than_its_length_allows(data: bytes) -> None:
    start_s = time.process_time()
    with suppress(BadInput):
        parse_json(data)
    assert time.process_time() - start_s < 2


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(JSON_VALUES, st.booleans())
def test_every_value_that_json_writes_is_read_back(value: Any, escaped: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=escaped).encode(), Limits(depth=64)) == value


@given(JSON_VALUES)
def test_any_value_is_read_or_bad_input(value: Any) -> None:
    shapes: list[Shape[Any]] = [DOCUMENT, FILE, items(text()), mapping(whole()), nullable(flag()), one_of(Colour)]
    for shape in shapes:
        assert told(lambda shape=shape: shape.read(value, "")).isprintable()


@given(st.binary(max_size=200) | st.text("[]{}.=\"'#\\\n a1_", max_size=200).map(str.encode))
def test_any_bytes_are_read_or_bad_input(data: bytes) -> None:
    for parse in (parse_json, parse_toml):
        assert told(lambda parse=parse: parse(data)).isprintable()


@given(st.text("[]{}.=\"'#\\\n a1_,", max_size=80))
def test_toml_that_is_shallow_and_short_is_what_tomllib_reads(source: str) -> None:
    try:
        expected: dict[str, Any] | None = tomllib.loads(source)
    except ValueError:
        expected = None
    wide = Limits(size_bytes=1000, values=1000, depth=100)
    if expected is None:
        with pytest.raises(BadInput):
            parse_toml(source.encode(), wide)
    else:
        assert parse_toml(source.encode(), wide) == expected


def test_an_unknown_format_is_a_kind_of_bad_input() -> None:
    with pytest.raises(UnknownFormat):
        DOCUMENT.read({"format": "1"}, "")
