"""The syntax tree of Rust source, by tree-sitter: whether it is whole, and whether two texts have the same one.

tree-sitter accepts more than rustc does; this is a pre-filter, not a proof that a file compiles.
"""

from __future__ import annotations

from functools import cache

import tree_sitter_rust
from tree_sitter import Language, Node, Parser, Tree

from workbench.stages.filter.rules import Drop


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_rust.language()))


def parse(text: bytes) -> Tree:
    return _parser().parse(text)


def broken(tree: Tree) -> Drop | None:
    """The first ERROR or MISSING node, if there is one."""
    if not tree.root_node.has_error:
        return None
    node = _first_error(tree.root_node)
    what = f"missing {node.type}" if node.is_missing else "error"
    return Drop("syntax", f"{what} in line {node.start_point[0] + 1}")


def _first_error(node: Node) -> Node:
    while not (node.is_error or node.is_missing):
        below = next((child for child in node.children if child.has_error or child.is_missing), None)
        if below is None:
            return node
        node = below
    return node


def same(first: Tree, second: Tree) -> bool:
    """Node for node: the same kinds in the same shape, and leaves of the same text but for their line ends.

    A carriage return before a line feed is no part of the program: Rust removes it before it reads tokens (The Rust
    Reference, "Input format").
    """
    one, two = first.walk(), second.walk()
    while True:
        a, b = one.node, two.node
        if a is None or b is None or a.kind_id != b.kind_id or a.child_count != b.child_count:
            return False
        if not a.child_count and _leaf(a) != _leaf(b):
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


def _leaf(node: Node) -> bytes:
    return (node.text or b"").replace(b"\r\n", b"\n").removesuffix(b"\r")
