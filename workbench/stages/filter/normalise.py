"""One spelling for what differs without meaning: byte order mark, line ends, trailing blanks, the final newline.

What is proposed is taken only where the syntax tree stays the same, node for node; else a weaker proposal is tried, and
at last the file is kept as it was. So blanks in string literals and in documentation, which are part of the program,
stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from workbench.stages.filter import syntax
from workbench.stages.filter.syntax import Parsed

BOM = b"\xef\xbb\xbf"
_SHEBANG = re.compile(rb"#!(?!\[)")
_TRAILING = re.compile(rb"[ \t]+(?=\n|\Z)")


def normalise(data: bytes) -> Parsed:
    """The most normalised form of ``data`` that has the syntax tree of ``data``; it is its own normal form."""
    before = syntax.parse(data)
    if before.costly:
        return before
    for proposed in _proposals(data):
        if proposed == data:
            break
        after = syntax.parse(proposed)
        if syntax.same(before, after):
            return after
    return before


def _proposals(data: bytes) -> Iterator[bytes]:
    lines = data.removeprefix(BOM).replace(b"\r\n", b"\n")
    yield _ended(_TRAILING.sub(b"", lines))
    yield _ended(lines)
    yield lines


def _ended(text: bytes) -> bytes:
    """Exactly one newline at the end, and none at the start; but what would become a shebang there (the parser takes it
    for one anywhere, rustc in the first line alone) stays where it is."""
    ended = text.rstrip(b"\n") + b"\n"
    stripped = ended.lstrip(b"\n") or b"\n"
    return ended if _SHEBANG.match(stripped) and stripped != ended else stripped
