"""Structural search over code."""

from __future__ import annotations

from workbench.sdk.answers import Matches
from workbench.sdk.services import current


def search(pattern: str, *, language: str, code: str | None = None, limit: int = 50) -> Matches:
    """Find an ast-grep pattern in ``code``, or, when none is given, in the files of this version."""
    return current().search(pattern, language=language, code=code, limit=limit)
