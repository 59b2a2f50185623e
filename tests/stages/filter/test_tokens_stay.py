"""Normalising before two judges that know nothing of its parser: a lexer after the Rust Reference, and rustc."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.stages.filter import syntax
from workbench.stages.filter.normalise import normalise

BOM = "\ufeff"
TOKEN = re.compile(
    r"""
    (?P<blank>[\t\n\x0b\x0c\r\x20\x85\u200e\u200f\u2028\u2029]+)
  | (?P<doc>///(?!/)[^\n]*|//![^\n]*)
  | (?P<comment>//[^\n]*)
  | (?P<block>/\*)
  | (?P<raw>(?:b|c)?r(?P<hashes>\#*)".*?"(?P=hashes))
  | (?P<string>(?:b|c)?"(?:\\.|[^"\\])*")
  | (?P<char>b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[^}']*\}|.)|[^'\\\n\r\t])')
  | (?P<lifetime>'(?:r\#)?[^\W\d]\w*)
  | (?P<word>(?:r\#)?\w+)
  | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def tokens(source: bytes) -> list[str]:
    """What the compiler reads: literals and documentation to the letter; no blanks, no other comments."""
    text = source.decode().removeprefix(BOM).replace("\r\n", "\n")
    at = _shebang_end(text)
    found = [text[:at]] if at else []
    while at < len(text):
        kind, end = _next(text, at)
        if kind not in ("blank", "comment"):
            found.append(text[at:end])
        at = end
    return found


def _next(text: str, at: int) -> tuple[str, int]:
    match = TOKEN.match(text, at)
    assert match
    if match.lastgroup != "block":
        return str(match.lastgroup), match.end()
    end = _block_end(text, at)
    return ("doc" if re.match(r"/\*(?:\*(?![*/])|!)", text[at:end]) else "comment"), end


def _shebang_end(text: str) -> int:
    """A first line that begins with ``#!``, unless the next token after it is a bracket: then it is an attribute."""
    if not text.startswith("#!"):
        return 0
    at = 2
    while at < len(text):
        kind, end = _next(text, at)
        if kind not in ("blank", "comment"):
            break
        at = end
    line_end = text.find("\n")
    return 0 if text[at : at + 1] == "[" else line_end if line_end >= 0 else len(text)


def _block_end(text: str, at: int) -> int:
    depth, position = 0, at
    while position < len(text):
        two = text[position : position + 2]
        if two == "/*":
            depth, position = depth + 1, position + 2
        elif two == "*/":
            depth, position = depth - 1, position + 2
            if not depth:
                return position
        else:
            position += 1
    return len(text)


def joined(*pieces: str, most: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), max_size=most).map("".join)


def escaped(text: str) -> str:
    """For a string of one kind: quotes, and a line that goes on."""
    return text.replace("#", '\\"').replace("a", "\\\n")


def unnested(text: str) -> str:
    return text.replace("*", "")


INSIDE = joined("a", " ", "  ", "\t", "\n", "\r\n", "\r", "//", "/*", "*", "'", "é", "\u202e", "{}", "#", most=8)
SIMPLE = INSIDE.map(lambda text: text.replace("\r", "").replace("\n", ""))
LITERAL = st.one_of(
    INSIDE.map(escaped).map('"{}"'.format),
    INSIDE.filter(str.isascii).map(escaped).map('b"{}"'.format),
    INSIDE.map('r"{}"'.format),
    INSIDE.map('r#"{}"  \n"#'.format),
    INSIDE.filter(str.isascii).map('br##"{}"#\t\n"##'.format),
    st.sampled_from(["'\"'", "'\\''", "b'\"'", "' '", "'/'", "1.0", "0x_ff", "'\\u{2028}'"]),
)
COMMENT = st.one_of(
    SIMPLE.map("// {}\n".format),
    SIMPLE.map("//// {}\r\n".format),
    INSIDE.map(unnested).map("/* {} /* nested \t\n */ \n*/".format),
    st.sampled_from(["/**/", "/***/", "/* ' */", '/* " */', "// '\n", '// "\n', "//\n", "// /*\n"]),
)
DOC = st.one_of(
    SIMPLE.map("/// {}\n".format),
    SIMPLE.map("///{}  \r\n".format),
    INSIDE.map(unnested).map("/** {} */".format),
)
BLANKS = joined(" ", "\t", "\n", "\r\n", "  \n", "\x0c", "\u200e", "\u2028", most=4)
ITEM = st.one_of(
    LITERAL.map("const A: T = {};".format),
    st.tuples(BLANKS, COMMENT, BLANKS).map("".join),
    DOC.map("{}pub struct S;".format),
    st.tuples(DOC, BLANKS, LITERAL, COMMENT, BLANKS).map(lambda parts: "m! {{ {}{}x{} {}{} }}".format(*parts)),
    st.tuples(BLANKS, LITERAL, BLANKS).map(
        lambda parts: "fn f<'a>(x: &'a T){}{{ g({}, 'a: loop {{}}){} }}".format(*parts)
    ),
    st.sampled_from(['#[doc = "a  \n"]fn d() {}', "fn r#match() {}", "#!  [allow(x)]", "fn e() { 'a' ; 'b'; }"]),
)
BEGINS = [
    "", BOM, "\n", "\n\n ", "#!/bin/sh  \n", BOM + "#!/bin/sh\n", "\n#![x]\n", "//! a  \n", "\n#!/bin/sh\n",
    "#!\n[x]\n", "\n#!\n[allow(x)]\n", "\n#!/* a */[allow(x)]\n", "\n#! // a\n [allow(x)]\n", "\n#!/*\n*/[x]\n",
    "\n#!/** a */[x]\n", "\n#! x\n[x]\n", "\n#!\n", "\n#!", "#!  ", BOM + BOM, "---\n---\n",
]  # fmt: skip
ENDS = ["", "\n", "\n\n", "  ", "\t\n", "\r\n", "// end  ", "/// end", "\r"]


@settings(max_examples=400)
@given(st.sampled_from(BEGINS), st.lists(st.tuples(ITEM, BLANKS).map("".join), max_size=5), st.sampled_from(ENDS))
def test_an_independent_lexer_reads_the_same_tokens_before_and_after(begin: str, items: list[str], end: str):
    source = (begin + "".join(items) + end).encode()
    done = normalise(source)
    if syntax.broken(done) is None:
        assert tokens(done.text) == tokens(source)
    assert normalise(done.text).text == done.text
