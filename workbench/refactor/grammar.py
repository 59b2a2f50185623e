"""ast-grep over one text, in this process: whether a pattern is one, and what it finds. Native: see ``process``.

Traps of ast-grep-py 0.51 that are handled here: a pattern that does not parse returns no match instead of an error;
positions count characters.

``python -m workbench.refactor.grammar`` answers requests, a JSON object a line, until its input ends::

    {"pattern": "$X.unwrap()", "language": "rust"}                                {"wrong": ""}
    {"pattern": "$X.unwrap()", "language": "rust", "text": "…", "limit": 50}      {"found": [{…}, …]}

or ``{"error": "…"}`` where the engine gave up.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from typing import Any

MAX_TEXT = 2000  # characters of one match that are returned
MEMORY_BYTES = 4 << 30  # of address space, where this is a process of its own


def find(text: str, pattern: str, language: str, limit: int) -> list[dict[str, Any]]:
    """The first ``limit`` matches, each as the fields of ``Match`` but its path."""
    nodes = _root(text, language).find_all(pattern=pattern)
    return [_match(node, pattern) for node in nodes[:limit]]


def wrong_with(pattern: str, language: str) -> str:
    """What is wrong with a pattern, or "". One that does not parse would silently match nothing."""
    try:
        _root("", language).find(pattern=pattern)
    except Exception as error:  # noqa: BLE001 - the engine's own errors have no narrower type
        return str(error)
    plain = _without_variables(pattern)
    contexts = _CONTEXTS[language] if _balanced(plain) else ("%s",)
    if all(_broken(context % plain, language) for context in contexts):
        return f"the pattern is not {language} that parses: {pattern[:80]!r}"
    return ""


def _root(text: str, language: str) -> Any:
    from ast_grep_py import SgRoot

    return SgRoot(text, language).root()


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
    text = re.sub(r"(?<=[{;])(\s*)\$\$\$[A-Z0-9_]*(?=\s*\})", r"\1", pattern)
    return text.replace("$$$", "_x").replace("$", "_x")


def _match(node: Any, pattern: str) -> dict[str, Any]:
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
    text = node.text()[:MAX_TEXT]
    return {"line": start.line + 1, "column": start.column + 1, "text": text, "variables": variables}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        print(json.dumps(_answer(**json.loads(line))), flush=True)


def _answer(*, pattern: str, language: str, text: str | None = None, limit: int = 1) -> dict[str, Any]:
    if text is None:
        return {"wrong": wrong_with(pattern, language)}
    try:
        return {"found": find(text, pattern, language, limit)}
    except Exception as error:  # noqa: BLE001 - as above
        return {"error": str(error)}


if __name__ == "__main__":
    main()
