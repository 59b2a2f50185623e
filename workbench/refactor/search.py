"""Structural search with ast-grep: bounded, and with an outcome that is always typed.

Traps of ast-grep-py 0.51 that are handled here: an unknown language panics with a BaseException; a pattern that does
not parse returns no match instead of an error; positions count characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

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
MAX_TEXT = 2000  # characters of one match that are returned


def search(sources: Iterable[tuple[str, str]], pattern: str, *, language: str, limit: int = 50) -> Matches:
    """Search ``(path, text)`` pairs in order; at most ``limit`` matches (outcome ``truncated`` when there are more)."""
    if language not in LANGUAGES:
        return Matches(outcome="invalid_rule", detail=f"unknown language {language!r}: one of {', '.join(LANGUAGES)}")
    wrong = _check_pattern(pattern, language)
    if wrong:
        return Matches(outcome="invalid_rule", detail=wrong)
    limit = max(1, min(limit, 1000))
    found: list[Match] = []
    searched = 0
    left_out = ""
    for path, text in sources:
        if len(text) * 4 > MAX_SOURCE and len(text.encode(errors="replace")) > MAX_SOURCE:
            left_out = left_out or f"not searched: {path}, which is larger than {MAX_SOURCE >> 20} MiB"
            continue
        searched += 1
        try:
            nodes = _root(text, language).find_all(pattern=pattern)
        except Exception as error:  # noqa: BLE001 - the engine's own errors have no narrower type
            return Matches(outcome="engine_error", detail=f"{path}: {error}", files_searched=searched)
        for node in nodes:
            if len(found) == limit:
                detail = f"more than {limit} matches; narrow the pattern or raise the limit"
                return Matches(outcome="truncated", matches=found, files_searched=searched, detail=detail)
            found.append(_match(node, path, pattern))
    if left_out:
        return Matches(outcome="truncated", matches=found, files_searched=searched, detail=left_out)
    return Matches(outcome="matched" if found else "no_match", matches=found, files_searched=searched)


def _root(text: str, language: str) -> Any:
    from ast_grep_py import SgRoot

    return SgRoot(text, language).root()


def _check_pattern(pattern: str, language: str) -> str:
    """What is wrong with a pattern, or "". One that does not parse would silently match nothing."""
    if not pattern.strip():
        return "the pattern is empty"
    if len(pattern) > MAX_PATTERN:
        return f"the pattern is longer than {MAX_PATTERN} characters"
    try:
        _root("", language).find(pattern=pattern)
        plain = _without_variables(pattern)
        contexts = _CONTEXTS[language] if _balanced(plain) else ("%s",)
        if all(_broken(context % plain, language) for context in contexts):
            return f"the pattern is not {language} that parses: {pattern[:80]!r}"
    except Exception as error:  # noqa: BLE001 - as above
        return str(error)
    return ""


# Where a fragment may stand: a call of Rust or Java is an error at the top of a file, but not in a function.
_CONTEXTS = {
    "rust": ("%s", "fn f() { %s }", "fn f() { %s; }", "impl A { %s }", "match a { %s }"),
    "python": ("%s", "%s:\n    pass"),
    "javascript": ("%s", "class A { %s }"),
    "typescript": ("%s", "class A { %s }"),
    "java": ("%s", "class A { %s }", "class A { void f() { %s } }", "class A { void f() { %s; } }"),
}


def _balanced(text: str) -> bool:
    """Brackets close in order: a fragment such as ``}{`` must not borrow those of its context."""
    closing, open_ones = {")": "(", "]": "[", "}": "{"}, []
    for character in text:
        if character in "([{":
            open_ones.append(character)
        elif character in closing and (not open_ones or open_ones.pop() != closing[character]):
            return False
    return not open_ones


def _broken(text: str, language: str) -> bool:
    return _root(text, language).find(kind="ERROR") is not None


def _without_variables(pattern: str) -> str:
    """The pattern with plain names for its variables; a list variable becomes a name as well, or nothing in a block."""
    import re

    text = re.sub(r"(?<=[{;])(\s*)\$\$\$[A-Z0-9_]*(?=\s*\})", r"\1", pattern)
    return text.replace("$$$", "_x").replace("$", "_x")


def _match(node: Any, path: str, pattern: str) -> Match:
    import re

    start = node.range().start
    variables = {}
    for multiple, name in re.findall(r"\$(\$\$)?([A-Z_][A-Z0-9_]*)", pattern):
        if multiple:
            nodes = node.get_multiple_matches(name)
            variables[name] = "".join(found.text() for found in nodes)[:MAX_TEXT]
        else:
            one = node.get_match(name)
            if one is not None:
                variables[name] = one.text()[:MAX_TEXT]
    return Match(
        path=path, line=start.line + 1, column=start.column + 1, text=node.text()[:MAX_TEXT], variables=variables
    )
