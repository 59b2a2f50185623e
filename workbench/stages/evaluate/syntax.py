"""Rust as a syntax tree: parse, and walk without recursion (source may nest deeper than Python's stack)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any


@cache
def _parser() -> Any:
    import tree_sitter_rust
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_rust.language()))


def parse(raw: bytes) -> Any:
    """The root node of UTF-8 source; source with errors gives a tree with error nodes."""
    return _parser().parse(raw).root_node


def nodes(root: Any) -> Iterator[Any]:
    """All nodes, parents first, in the order of the source."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(node.children)


def text(raw: bytes, node: Any) -> str:
    return raw[node.start_byte : node.end_byte].decode()


def name(raw: bytes, node: Any) -> str:
    found = node.child_by_field_name("name")
    return "" if found is None else text(raw, found)
