"""What a stage says, as text that terminals, logs and JSON take: one line, no control sequences, no half characters."""

from __future__ import annotations

import re
import unicodedata

# ECMA-48: control sequences (colours, the cursor), and strings (a window's title) up to their end.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def plain(line: str) -> str:
    """Colours are left out, of a line that was written over what was written last, and other signs that show nothing
    or the wrong thing as escapes. A tab stays."""
    if line.isprintable():
        return line
    text = _SEQUENCE.sub("", line).rstrip("\r").rpartition("\r")[2]
    return "".join(map(_visible, text))


def _visible(char: str) -> str:
    if char == "\t" or unicodedata.category(char) not in _HIDDEN:
        return char
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
