"""Normalising never changes a program; and parsing hostile text ends."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.stages.filter import syntax
from workbench.stages.filter.normalise import normalise

BOM = b"\xef\xbb\xbf"
BLANKS = [
    " ",
    "  ",
    "\t",
    " \t",
    "\r",
    "\r\n",
    "\n",
    "\n\n",
    "\u00a0",
    "\x0c",
    "\u2028",
    '"',
    "'",
    "\\",
    "//",
    "/*",
    "*/",
    'r#"',
    '"#',
    "#",
    "{",
    "}",
    "é",
]


def shape(text: bytes) -> list[tuple[str, bytes]]:
    """An independent reading of the tree: kinds in order, and the text of leaves and whole literals."""
    parsed = syntax.parse(text)
    found: list[tuple[str, bytes]] = []
    waiting = [parsed.tree.root_node]
    while waiting:
        node = waiting.pop()
        whole = node.type in syntax.LITERALS or node.type == "doc_comment" or not node.child_count
        own = text[node.start_byte : node.end_byte].replace(b"\r\n", b"\n") if whole else b""
        found.append((node.type, own.rstrip(b"\r") if node.type in ("line_comment", "doc_comment") else own))
        waiting.extend(reversed(node.children))
    return found


def test_real_rust_is_whole_and_its_own_normal_form(rust: str):
    assert syntax.broken(syntax.parse(rust.encode())) is None
    assert normalise(rust.encode()).text == rust.encode()


@settings(max_examples=150)
@given(st.data())
def test_mutated_rust_keeps_its_tree_and_is_normal_after_once(rust: str, data: st.DataObject):
    text = rust
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text)))
        spice = data.draw(st.sampled_from(BLANKS))
        text = text[:at] + spice + text[at + data.draw(st.sampled_from([0, 0, 1])) :]
    raw = text.encode()
    if data.draw(st.booleans()):
        raw = raw.replace(b"\n", b"\r\n")
    if data.draw(st.booleans()):
        raw = BOM + raw
    done = normalise(raw)
    if syntax.broken(syntax.parse(raw)) is None:
        assert shape(done.text) == shape(raw)
        assert syntax.broken(done) is None
    assert normalise(done.text).text == done.text


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (b"// a word\nfn a() {}\n", b"// another\nfn a() {}\n", False),
        (b"/* a */ fn a() {}\n", b"/* b */ fn a() {}\n", False),
        (b"/* a  \n b */\n", b"/* a\n b */\n", True),
        (b"fn a() {}\n", b"fn  a()\t{ }\n", True),
        (b"fn a() {}\n", b"fn b() {}\n", False),
        (b'const A: &str = r" x";\n', b'const A: &str = r"  x";\n', False),
        (b"m!(a b)\n", b"m!(a, b)\n", False),
        (b"fn a() {}\n", b"fn a() {} fn b() {}\n", False),
    ],
)
def test_what_stands_between_the_leaves_counts_but_for_blanks(one: bytes, two: bytes, same: bool):
    assert syntax.same(syntax.parse(one), syntax.parse(two)) is same
    assert syntax.same(syntax.parse(two), syntax.parse(one)) is same


@settings(max_examples=150)
@given(
    st.text(alphabet=" \t\r\nab\\é", max_size=25),
    st.sampled_from(['"{}"', 'r"{}"', 'r#"{}"#', 'b"{}"', 'br"{}"', 'c"{}"']),
)
def test_blanks_in_strings_stay(inside: str, form: str):
    literal = form.format(inside).encode()
    done = normalise(b"const A: &str =   \n    " + literal + b";  \n")
    assert literal.replace(b"\r\n", b"\n") in done.text or literal in done.text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BOM + b"fn a() {}\n", b"fn a() {}\n"),
        (b"fn a() {}\r\nfn b() {}\r\n", b"fn a() {}\nfn b() {}\n"),
        (b"\n\nfn a() {}  \n\t\n\n", b"fn a() {}\n"),
        (b"fn a() {}", b"fn a() {}\n"),
        (b"fn a() {} // note  \n", b"fn a() {} // note\n"),
        (b"/* a  \n b */\nfn a() {}\n", b"/* a\n b */\nfn a() {}\n"),
        # A shebang is one in the first line alone, and nothing becomes one.
        (b"#!/bin/sh\n\nfn a() {}  \n", b"#!/bin/sh\n\nfn a() {}\n"),
        (b"\n#!/bin/sh\nfn a() {}  \n", b"\n#!/bin/sh\nfn a() {}\n"),
        (b"\n\n#! // a\n [allow(x)]\nfn a() {}\n\n", b"\n\n#! // a\n [allow(x)]\nfn a() {}\n"),
        (b"\n#![allow(x)]\nfn a() {}\n", b"#![allow(x)]\nfn a() {}\n"),
        # Documentation is an attribute, so its blanks are part of the program.
        (b"/// a  \nfn a() {}\n\n", b"/// a  \nfn a() {}\n"),
        (b'const A: &str = "a  \n b";\n\n', b'const A: &str = "a  \n b";\n'),
        (b'const A: &str = r"  \n b";\n\n', b'const A: &str = r"  \n b";\n'),
        (b'const A: &str = r#"\n  \t\n"#;\n\n', b'const A: &str = r#"\n  \t\n"#;\n'),
        # Rust takes one carriage return from a line end, once: two of them stay as they are.
        (b"fn a() {}\r\r\n", b"fn a() {}\r\r\n"),
        (b"// a\rb\nfn a() {}\n", b"// a\rb\nfn a() {}\n"),
        (b"m! { a  \n  b }\n", b"m! { a\n  b }\n"),
    ],
)
def test_each_kind_of_blank_is_treated_as_rust_treats_it(before: bytes, after: bytes):
    assert normalise(before).text == after


@pytest.mark.skipif(shutil.which("rustc") is None, reason="rustc is not installed")
def test_rustc_reads_the_same_tokens_before_and_after(rust: str, tmp_path: Path):
    """The compiler itself as judge: what ``stringify!`` and string constants hold does not change."""
    program = (
        b'const A: &str = "a  \n\tb \\\n   c";\nconst B: &str = r"  \n x  ";\n/// doc  \npub struct S;\n// note   \n'
        b'fn main() { print!("{:?}{:?}{}", A, B, stringify!(a   b  \n "c  "  )); }   \n\n\n'
    )
    outputs = []
    for number, text in enumerate((program, normalise(BOM + program.replace(b"\n", b"\r\n")).text)):
        source = tmp_path / f"p{number}.rs"
        source.write_bytes(text)
        subprocess.run(["rustc", "-Aall", "-o", str(source.with_suffix("")), str(source)], check=True)
        outputs.append(subprocess.check_output([str(source.with_suffix(""))]))
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"fn a() {\n", "error in line 1"),
        (b"fn a() {}\nfn b( {}\n", "line 2"),
        (b"fn a() { let = 1; }\n", "error in line 1"),
        (b"struct S { a: }\n", "line 1"),
        (b"<html>\n", "error in line 1"),
        (b'const A: &str = "a;\n', "line 1"),
        (b"fn a() {}\nuse a::b\n", "missing ; in line 2"),
    ],
)
def test_errors_and_missing_nodes_are_told_with_their_line(text: bytes, told: str):
    drop = syntax.broken(syntax.parse(text))
    assert drop is not None
    assert drop.rule == "syntax"
    assert told in drop.detail


HOSTILE = {
    "raw strings that never end": b'r#"' * 20 + b"\n",
    "quotes of every kind": b"\"'r#" * 20 + b"\n",
    "open brackets": b"(" * 90 + b"\n",
    "open generics": b"::<a" * 20 + b"\n",
    "comments that never end": b"/*" * 40 + b"\n",
    "conditions": b"if a {" * 15 + b"\n",
    "attributes": b"#[a(" * 20 + b"\n",
    "lifetimes": b"'a " * 30 + b"\n",
    "comparisons": b"a < b , " * 10 + b"\n",
    "macros": b"m!( " * 20 + b"\n",
    "closed brackets": b"} ] ) @ " * 12 + b"\n",
    "bars": b"|" * 90 + b"\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_judged_within_a_bound(name: str):
    text = b"fn f() { " + HOSTILE[name] * (400_000 // len(HOSTILE[name]))
    start_s = time.process_time()
    assert syntax.broken(normalise(text)) is not None
    assert time.process_time() - start_s < 8


def test_what_is_too_costly_is_dropped_for_that_reason_whatever_the_machine():
    text = b"fn f() { " + b'r#"\n' * 50_000
    parsed = syntax.parse(text)
    assert parsed.costly
    assert syntax.broken(parsed) == syntax.broken(syntax.parse(text))
    assert "too costly" in str(syntax.broken(parsed))
    assert not syntax.same(parsed, parsed)


def test_deep_nesting_that_is_right_is_no_error():
    text = b"fn f() -> u8 { " + b"(" * 3000 + b"1" + b")" * 3000 + b" }\n"
    assert syntax.broken(normalise(text)) is None
