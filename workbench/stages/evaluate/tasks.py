"""Which spans of held-out source are masked: whole statements and the bodies of functions, chosen by content hash.

Pure: the same documents give the same tasks, in whatever order they come. Not here: asking a model, or rustc.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from workbench.stages.evaluate.syntax import parse

LONGEST_DOCUMENT = 256 << 10  # characters; longer ones are not parsed
SHORTEST_MIDDLE = 8
_STATEMENTS = ("let_declaration", "expression_statement")
_NO_TAIL = (*_STATEMENTS, "line_comment", "block_comment", "attribute_item", "macro_definition", "empty_statement")


@dataclass(frozen=True)
class Source:
    """A text that spans are masked in: a document, or a snippet of one that stands alone."""

    document: str  # id of the dataset's document
    text: str


@dataclass(frozen=True)
class Task:
    """A masked span. ``before + middle + after`` is the source's text; the model sees ``prefix`` and ``suffix``."""

    id: str
    document: str
    before: str
    middle: str
    after: str
    prefix: str
    suffix: str

    def filled(self, completion: str) -> str:
        return self.before + completion + self.after


def rank(*parts: str | int) -> str:
    """A key to order by: fixed for a content and a seed, and without any other meaning."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def choose(
    source: Source,
    *,
    kind: str,
    seed: int,
    longest_middle: int,
    context_characters: int,
    fits: Callable[[str, str, str], bool],
) -> Task | None:
    """The first span, in hash order, whose prompt and middle the model can take; the context shrinks until it fits."""
    if len(source.text) > LONGEST_DOCUMENT:
        return None
    found = [(start, end) for start, end in spans(source.text) if SHORTEST_MIDDLE <= end - start <= longest_middle]
    for start, end in sorted(found, key=lambda span: rank("span", seed, source.text, *span))[:8]:
        before, middle, after = source.text[:start], source.text[start:end], source.text[end:]
        size = context_characters
        while size >= 32:
            prefix, suffix = _last_lines(before, size * 2 // 3), _first_lines(after, size // 3)
            if fits(prefix, middle, suffix):
                id = rank("task", kind, source.text, start, end)[:16]
                return Task(id, source.document, before, middle, after, prefix, suffix)
            size = size * 3 // 4
    return None


def spans(text: str) -> list[tuple[int, int]]:
    """Statements, tail expressions and short bodies inside functions, as character offsets, in order."""
    raw = text.encode()
    found: set[tuple[int, int]] = set()
    for node in _blocks_in_functions(parse(raw)):
        inside = node.named_children
        for child in inside:
            if child.type in _STATEMENTS or (child == inside[-1] and _is_tail(child)):
                found.add((child.start_byte, child.end_byte))
        if inside:
            found.add((inside[0].start_byte, inside[-1].end_byte))
    characters = _character_offsets(text, raw)
    return sorted((characters(start), characters(end)) for start, end in found)


def in_hash_order(sources: Iterable[Source], seed: int) -> list[Source]:
    return sorted(sources, key=lambda source: rank("source", seed, source.text))


def _blocks_in_functions(root: Any) -> Iterator[Any]:
    """Carries along whether it is inside a function: asking a node for its parent walks down from the root each time,
    and source that nests thousands deep would take minutes."""
    waiting = [(root, False)]
    while waiting:
        node, inside = waiting.pop()
        if inside and node.type == "block":
            yield node
        inside = inside or node.type == "function_item"
        waiting += [(child, inside) for child in reversed(node.children)]


def _is_tail(node: Any) -> bool:
    return node.type not in _NO_TAIL and not node.type.endswith("_item") and node.type != "use_declaration"


def _character_offsets(text: str, raw: bytes) -> Callable[[int], int]:
    if len(raw) == len(text):
        return lambda offset: offset
    return lambda offset: len(raw[:offset].decode())


def _last_lines(text: str, size: int) -> str:
    """At most ``size`` characters from the end, from a line's start on where one is there."""
    if len(text) <= size:
        return text
    cut = text[-size:]
    start = cut.find("\n") + 1
    return cut[start:] if start else cut


def _first_lines(text: str, size: int) -> str:
    if len(text) <= size:
        return text
    cut = text[:size]
    end = cut.rfind("\n") + 1
    return cut[:end] or cut
