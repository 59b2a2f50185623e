"""``.gitattributes`` as git reads it (attr.c, gitattributes(5)). Pure. Not here: which attributes mean what to git.

A line ends at a line feed alone, and is read up to its first NUL byte. Words end at blank, tab, carriage return or line
feed. A pattern may stand in C quotes; then the words begin after the closing quote. One invalid attribute name makes
git pass over its whole line. Git drops a byte order mark when it reads a file, and not when it reads an object: both
readings count here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_BLANK = b" \t\r\n"
_WORD = re.compile(rb"[^ \t\r\n]+")
_NAME = re.compile(rb"[A-Za-z0-9_.][A-Za-z0-9_.-]*\Z")
_MACRO = b"[attr]"
_BOM = b"\xef\xbb\xbf"
_ESCAPES = b'abfnrtv\\"'
_BUILTIN_MERGES = frozenset({b"text", b"binary", b"union"})


def driver(data: bytes) -> bytes:
    """The first word that names a filter, diff or merge driver, which runs a program of the reader; empty where none
    does."""
    lines = data.split(b"\n")
    for line in (lines[0].removeprefix(_BOM), *lines):
        words = list(_states(line.partition(b"\0")[0]))
        if all(_is_valid(word) for word in words):
            found = next((word for word in words if _names_driver(word)), b"")
            if found:
                return found
    return b""


def _states(line: bytes) -> Iterator[bytes]:
    """The words of a line after its pattern (or after the name of a macro, ``[attr]name``)."""
    line = line.lstrip(_BLANK)
    if not line or line.startswith(b"#"):
        return
    end = _end_of_quoted(line) or _end_of_word(line, 0)
    pattern = line[:end]
    if pattern.startswith(_MACRO) and len(pattern) > len(_MACRO) and not _NAME.match(pattern[len(_MACRO) :]):
        return
    for word in _WORD.finditer(line, end):
        yield word[0]


def _end_of_word(line: bytes, start: int) -> int:
    word = _WORD.match(line, start)
    return word.end() if word else start


def _end_of_quoted(line: bytes) -> int:
    """Where a pattern in C quotes ends (quote.c, ``unquote_c_style``); 0 where the line does not begin with one."""
    if not line.startswith(b'"'):
        return 0
    at = 1
    while at < len(line):
        byte = line[at : at + 1]
        if byte == b'"':
            return at + 1
        if byte != b"\\":
            at += 1
        elif line[at + 1 : at + 2] and line[at + 1 : at + 2] in _ESCAPES:
            at += 2
        elif re.match(rb"[0-3][0-7][0-7]", line[at + 1 : at + 4]):
            at += 4
        else:
            return 0
    return 0


def _is_valid(word: bytes) -> bool:
    name = word.partition(b"=")[0]
    return bool(_NAME.match(name[1:] if name[:1] in (b"-", b"!") else name))


def _names_driver(word: bytes) -> bool:
    name, _, value = word.partition(b"=")
    if name == b"merge":
        return bool(value) and value not in _BUILTIN_MERGES
    return name == b"filter" or (name == b"diff" and bool(value))
