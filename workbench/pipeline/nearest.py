"""The hint for a name that does not exist: the nearest one that does, and the rest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(wrong: str, right: Iterable[str]) -> str:
    names = [str(name) for name in right]
    if not names:
        return "there is none yet"
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    known = f"known: {', '.join(names)}"
    return f"did you mean {near[0]!r}? {known}" if near else known
