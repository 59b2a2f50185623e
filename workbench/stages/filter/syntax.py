"""The syntax tree of Rust source, by tree-sitter: whether it is whole, and whether two texts have the same one.

tree-sitter accepts more than rustc does; this is a pre-filter, not a proof that a file compiles. It reads some hostile
texts again from every character on (a raw string that never ends, begun anew on each line), so what it may read is
bounded: in bytes, not seconds, so that a slow machine gives the same verdicts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import tree_sitter_rust
from tree_sitter import Language, Node, Parser, Tree, TreeCursor

from workbench.stages.filter.rules import Drop

PIECE = 4096  # bytes that the parser is given at a time
READ_AGAIN, READ_SLACK = 32, 1 << 20  # bytes it may read: so many times the text, and so many more
LITERALS = frozenset(["string_literal", "raw_string_literal", "char_literal"])
_TRAILING = re.compile(rb"[ \t\r]+(?=\n|\Z)")


@dataclass(frozen=True)
class Parsed:
    """A text and its tree. ``costly``: the parser would have read it too often, and the tree is not whole."""

    text: bytes
    tree: Tree
    costly: bool = False


def parse(text: bytes) -> Parsed:
    left = len(text) * READ_AGAIN + READ_SLACK

    def read(at: int, _: Any) -> bytes:
        nonlocal left
        if left < 0:
            return b""  # for the parser the text ends here
        left -= PIECE
        return text[at : at + PIECE]

    tree = _parser().parse(read)
    return Parsed(text, tree, left < 0)


def broken(parsed: Parsed) -> Drop | None:
    """The first ERROR or MISSING node, if there is one."""
    if parsed.costly:
        return Drop("syntax", "too costly to parse")
    if not parsed.tree.root_node.has_error:
        return None
    node = _first_error(parsed.tree.root_node)
    what = f"missing {node.type}" if node.is_missing else "error"
    return Drop("syntax", f"{what} in line {node.start_point[0] + 1}")


def same(first: Parsed, second: Parsed) -> bool:
    """Node for node: the same kinds in the same shape, leaves of the same text, and between leaves nothing but blanks
    that differ (in literals not even those, in comments those at the end of a line).

    A carriage return before a line feed is no part of the program: Rust removes it, once, before it reads tokens (The
    Rust Reference, "Input format"). A text that still holds the pair afterwards is the same as itself alone.
    """
    if first.costly or second.costly:
        return False
    before = first.text.replace(b"\r\n", b"\n")
    if b"\r\n" in before or (b"\r\n" in second.text and second.text != first.text):
        return first.text == second.text
    one, two = first.tree.walk(), second.tree.walk()
    while True:
        if not _same_node(one, two, first.text, second.text):
            return False
        if one.goto_first_child():
            two.goto_first_child()
            continue
        while not one.goto_next_sibling():
            if not one.goto_parent():
                return True
            two.goto_parent()
        if not two.goto_next_sibling():
            return False


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_rust.language()))


def _first_error(node: Node) -> Node:
    while not (node.is_error or node.is_missing):
        below = next((child for child in node.children if child.has_error or child.is_missing), None)
        if below is None:
            return node
        node = below
    return node


def _same_node(one: TreeCursor, two: TreeCursor, first: bytes, second: bytes) -> bool:
    a, b = one.node, two.node
    if a is None or b is None or a.kind_id != b.kind_id or a.child_count != b.child_count:
        return False
    if not a.child_count or a.type in LITERALS:
        return _leaf(a, first) == _leaf(b, second)
    return _between(a, first) == _between(b, second)


def _leaf(node: Node, text: bytes) -> bytes:
    return text[node.start_byte : node.end_byte].replace(b"\r\n", b"\n").removesuffix(b"\r")


def _between(node: Node, text: bytes) -> bytes:
    """What of a node's text belongs to none of its children (the words of a comment), without blanks at line ends."""
    pieces, at = [], node.start_byte
    for child in node.children:
        pieces.append(text[at : child.start_byte])
        at = child.end_byte
    pieces.append(text[at : node.end_byte])
    return b"".join(_TRAILING.sub(b"", piece).strip() for piece in pieces)
