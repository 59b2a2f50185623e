"""Words of others (names, messages, logs, manifests) as text that a terminal shows and never obeys.

Everything that leaves for a terminal goes through here at its edge: the command line's output, and what hooks send.
"""

from __future__ import annotations

import unicodedata

# Control characters (C0 and C1: escape sequences, carriage returns), format characters (bidirectional overrides,
# zero width, tags), half characters, and the separators of lines that are no newline.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """Signs that show nothing or the wrong thing become escapes (``\\x1b``); newlines and tabs stay."""
    return text if text.isprintable() else "".join(map(_visible, text))


def one_line(text: str) -> str:
    """The same, with newlines as blanks."""
    return printable(" ".join(text.split("\n")) if "\n" in text else text)


def _visible(char: str) -> str:
    if char in "\t\n" or unicodedata.category(char) not in _HIDDEN:
        return char
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
