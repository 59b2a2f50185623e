"""Words of others (names, messages, logs, manifests) as text that a terminal shows and never obeys.

Everything that leaves for a terminal goes through here at its edge: the command line's output, and what hooks send.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

# Control characters (C0 and C1: escape sequences, carriage returns), format characters (bidirectional overrides,
# zero width, tags), half characters, and the separators of lines that are no newline.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """Signs that show nothing or the wrong thing become escapes (``\\x1b``); newlines and tabs stay."""
    return _shown(text, lambda char: char.encode("unicode_escape", "surrogatepass").decode("ascii"))


def one_line(text: str) -> str:
    """The same, with newlines as blanks."""
    return printable(" ".join(text.split("\n")) if "\n" in text else text)


def printable_json(text: str) -> str:
    """JSON with the same signs as JSON's own escapes: the same value for programs."""
    return _shown(text, _json_escape)


def _shown(text: str, escape: Callable[[str], str]) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(escape(c) if c not in "\t\n" and unicodedata.category(c) in _HIDDEN else c for c in text)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
