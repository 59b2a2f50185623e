"""Structural search: bounded, and with an outcome that is always typed. Not here: ast-grep itself (``grammar``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from workbench.domain.errors import NO_ANSWER, NativeCrash
from workbench.refactor.process import EngineError, Grammars, shared
from workbench.sdk.answers import Match, Matches

LANGUAGES = {
    "rust": (".rs",),
    "python": (".py", ".pyi"),
    "javascript": (".js", ".mjs", ".cjs"),
    "typescript": (".ts", ".mts"),
    "java": (".java",),
}
MAX_PATTERN = 4096  # characters
MAX_SOURCE = 4 << 20  # bytes of one file; a larger one is not searched, and that is said


def search(
    sources: Iterable[tuple[str, str]],
    pattern: str,
    *,
    language: str,
    limit: int = 50,
    grammars: Grammars | None = None,
) -> Matches:
    """Search ``(path, text)`` pairs in order; at most ``limit`` matches (outcome ``truncated`` when there are more). A
    crash of the engine is ``engine_error``, a text that it does not come to an end with ``timeout``."""
    grammars = grammars or shared()
    searched = 0
    found: list[Match] = []
    left_out = ""
    try:
        wrong = _wrong(pattern, language, grammars)
        if wrong:
            return Matches(outcome="invalid_rule", detail=wrong)
        limit = max(1, min(limit, 1000))
        for path, text in sources:
            if len(text) * 4 > MAX_SOURCE and len(text.encode(errors="replace")) > MAX_SOURCE:
                left_out = left_out or f"not searched: {path}, which is larger than {MAX_SOURCE >> 20} MiB"
                continue
            searched += 1
            new = grammars.find(text, pattern, language, limit + 1 - len(found), path=path)
            found.extend(Match(path=path, **match) for match in new)
            if len(found) > limit:
                detail = f"more than {limit} matches; narrow the pattern or raise the limit"
                return Matches(outcome="truncated", matches=found[:limit], files_searched=searched, detail=detail)
    except NativeCrash as crash:
        ended: Literal["timeout", "engine_error"] = "timeout" if crash.ended == NO_ANSWER else "engine_error"
        return Matches(outcome=ended, detail=crash.what, files_searched=searched)
    except EngineError as error:
        return Matches(outcome="engine_error", detail=error.what, files_searched=searched)
    if left_out:
        return Matches(outcome="truncated", matches=found, files_searched=searched, detail=left_out)
    return Matches(outcome="matched" if found else "no_match", matches=found, files_searched=searched)


def _wrong(pattern: str, language: str, grammars: Grammars) -> str:
    """What is wrong with a question, or ""."""
    if language not in LANGUAGES:
        return f"unknown language {language!r}: one of {', '.join(LANGUAGES)}"
    if not pattern.strip():
        return "the pattern is empty"
    if len(pattern) > MAX_PATTERN:
        return f"the pattern is longer than {MAX_PATTERN} characters"
    return grammars.wrong_with(pattern, language)
