"""What a stage says, as text that terminals, logs and JSON take: one line, no control sequences, no half characters."""

from __future__ import annotations

import re

from workbench.domain.printable import printable

# ECMA-48: control sequences (colours, the cursor), and strings (a window's title) up to their end.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")


def plain(line: str) -> str:
    """Colours are left out, of a line that was written over what was written last, and the rest is ``printable``."""
    if line.isprintable():
        return line
    return printable(_SEQUENCE.sub("", line).rstrip("\r").rpartition("\r")[2]).replace("\n", "\\n")
