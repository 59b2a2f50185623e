"""Parts of a file that may compile alone: a function or method, with the items of its file that it names.

Most source names things from elsewhere. What plainly does is left out here, cheaply; whether the rest stands alone is
rustc's to say, not ours. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workbench.stages.evaluate.syntax import name, nodes, parse, text
from workbench.stages.evaluate.tasks import LONGEST_DOCUMENT, Source, rank

LONGEST_SNIPPET = 2048
PER_DOCUMENT = 6  # so that no single file makes the figure
LONGEST_CHAIN = 12  # items that one snippet may pull in

_ITEMS = frozenset(
    ("struct_item", "enum_item", "union_item", "type_item", "const_item", "static_item", "function_item", "trait_item")
)
_STD_ROOTS = frozenset(("std", "core", "alloc"))
_MACROS = frozenset(
    (
        *(
            "assert",
            "assert_eq",
            "assert_ne",
            "concat",
            "debug_assert",
            "debug_assert_eq",
            "debug_assert_ne",
            "eprintln",
        ),
        *("format", "format_args", "matches", "panic", "print", "println", "todo", "unimplemented", "unreachable"),
        *("vec", "write", "writeln"),
    )
)
_PRELUDE = frozenset(
    (
        *(
            "Option",
            "Some",
            "None",
            "Result",
            "Ok",
            "Err",
            "String",
            "Vec",
            "Box",
            "ToString",
            "ToOwned",
            "Self",
            "self",
        ),
        *("Into", "From", "TryFrom", "TryInto", "AsRef", "AsMut", "Clone", "Copy", "Send", "Sync", "Sized", "Drop"),
        *("Fn", "FnMut", "FnOnce", "Iterator", "IntoIterator", "Extend", "DoubleEndedIterator", "ExactSizeIterator"),
        *("Default", "PartialEq", "Eq", "PartialOrd", "Ord", "FromIterator"),
        *("str", "bool", "char", "u8", "u16", "u32", "u64", "u128", "usize"),
        *("i8", "i16", "i32", "i64", "i128", "isize", "f32", "f64"),
    )
)
_DERIVES = frozenset(("Debug", "Clone", "Copy", "PartialEq", "Eq", "Hash", "PartialOrd", "Ord", "Default"))
_LEAF = re.compile(r"\b(\w+)\b(?!\s*::)")
_INNER_ATTRIBUTES = frozenset(("allow", "default", "expect", "inline", "must_use", "non_exhaustive"))


def snippets(source: Source) -> Iterator[Source]:
    """At most ``PER_DOCUMENT`` distinct ones, chosen by content hash."""
    if len(source.text) > LONGEST_DOCUMENT:
        return
    file = _File.read(source.text)
    found = {snippet for node, owner in file.functions() if (snippet := file.snippet(node, owner))}
    for found_text in sorted(found, key=lambda snippet: rank("snippet", snippet))[:PER_DOCUMENT]:
        yield Source(source.document, found_text)


@dataclass(frozen=True)
class _File:
    raw: bytes
    root: Any
    items: dict[str, Any]  # top-level items by name; a name given twice (by cfg) is left out
    imports: str  # use declarations of the standard library
    imported: frozenset[str]  # every word in them
    foreign: frozenset[str]  # what the others bring in

    @classmethod
    def read(cls, source: str) -> _File:
        raw = source.encode()
        root = parse(raw)
        items: dict[str, Any] = {}
        twice: set[str] = set()
        std: list[str] = []
        others: list[str] = []
        for node in root.children:
            if node.type == "use_declaration":
                line = text(raw, node)
                (std if re.match(r"use\s+(std|core|alloc)\b", line) else others).append(line)
            elif node.type in _ITEMS:
                twice |= {name(raw, node)} & items.keys()
                items[name(raw, node)] = node
        return cls(
            raw=raw,
            root=root,
            items={key: node for key, node in items.items() if key not in twice},
            imports="".join(line + "\n" for line in std),
            imported=frozenset(word for line in std for word in re.findall(r"\w+", line)),
            foreign=frozenset(word for line in others for word in _LEAF.findall(line)) - _STD_ROOTS,
        )

    def functions(self) -> Iterator[tuple[Any, Any | None]]:
        """Free functions, and methods with the ``impl`` block (of a type of this file, of no trait) they stand in."""
        for node in self.root.children:
            if node.type == "function_item":
                yield node, None
            if node.type == "impl_item" and node.child_by_field_name("trait") is None:
                body = node.child_by_field_name("body")
                for child in body.children if body is not None else ():
                    if child.type == "function_item":
                        yield child, node

    def snippet(self, function: Any, owner: Any | None) -> str:
        """The text that may stand alone, or "" where it plainly cannot."""
        body = function.child_by_field_name("body")
        if body is None or not body.named_children or function.end_byte - function.start_byte > LONGEST_SNIPPET:
            return ""
        needed = self._closure([function] if owner is None else [function, *self._heads(owner)])
        if needed is None:
            return ""
        parts = [_item(self.raw, node) for node in sorted(needed, key=lambda node: node.start_byte) if node != function]
        if owner is None:
            parts.append(_dedented(self.raw, function))
        else:
            body = owner.child_by_field_name("body")
            head = self.raw[owner.start_byte : body.start_byte].decode().rstrip()
            indent = " " * function.start_point[1]
            parts.append(f"{head} {{\n{indent}{text(self.raw, function)}\n}}")
        whole = "\n\n".join([self.imports.rstrip(), *parts] if self.imports else parts) + "\n"
        return whole if len(whole) <= LONGEST_SNIPPET else ""

    def _heads(self, owner: Any) -> list[Any]:
        return [child for child in owner.children if child.type != "declaration_list"]

    def _closure(self, start: list[Any]) -> list[Any] | None:
        """The items of this file that ``start`` names, directly or not; None when something is from elsewhere."""
        generics = {word for node in start for word in self._generics(node)}
        needed: dict[str, Any] = {}
        waiting = list(start)
        while waiting:
            words = self._names(waiting.pop(), generics)
            if words is None:
                return None
            for word in sorted(words & self.items.keys() - needed.keys()):
                if self.items[word].end_byte - self.items[word].start_byte > LONGEST_SNIPPET:
                    return None
                needed[word] = self.items[word]
                waiting.append(self.items[word])
            if len(needed) > LONGEST_CHAIN:
                return None
        return list(needed.values())

    def _names(self, item: Any, generics: set[str]) -> set[str] | None:
        """What an item names in its file; None when it names something that neither the file nor std has."""
        known = generics | self._generics(item) | self.items.keys() | self.imported | _PRELUDE
        found: set[str] = set()
        for node in nodes(item):
            if node.type in ("identifier", "type_identifier"):
                word = text(self.raw, node)
                parent = node.parent.type
                if parent in ("scoped_identifier", "scoped_type_identifier") and not _is_root(node):
                    continue
                if word in self.foreign and word not in self.imported | self.items.keys():
                    return None
                if node.type == "type_identifier" and word not in known:
                    return None
                if parent == "scoped_identifier" and word not in known and word not in _STD_ROOTS:
                    return None
                if parent == "macro_invocation" and word not in _MACROS:
                    return None
                found.add(word)
            elif node.type in ("crate", "super") or (node.type == "attribute" and not self._harmless(node)):
                return None
        return found

    def _generics(self, item: Any) -> set[str]:
        return {
            text(self.raw, inner)
            for node in nodes(item)
            if node.type == "type_parameters"
            for inner in nodes(node)
            if inner.type in ("type_identifier", "identifier")
        }

    def _harmless(self, attribute: Any) -> bool:
        words = re.findall(r"\w+", text(self.raw, attribute))
        return bool(words) and words[0] in _INNER_ATTRIBUTES


def _is_root(node: Any) -> bool:
    """Whether ``node`` is the first part of a path: ``a`` in ``a::b``."""
    path = node.parent.child_by_field_name("path")
    return path is None or path == node


def _item(raw: bytes, node: Any) -> str:
    """An item with those of its derives that the standard library has."""
    derives: list[str] = []
    before = node.prev_sibling
    while before is not None and before.type in ("attribute_item", "line_comment", "block_comment"):
        line = text(raw, before)
        if line.startswith("#[derive("):
            derives += [word for word in re.findall(r"\w+", line)[1:] if word in _DERIVES]
        before = before.prev_sibling
    head = f"#[derive({', '.join(dict.fromkeys(derives))})]\n" if derives else ""
    return head + text(raw, node)


def _dedented(raw: bytes, node: Any) -> str:
    indent = " " * node.start_point[1]
    first, *others = text(raw, node).split("\n")
    return "\n".join([first, *(line.removeprefix(indent) for line in others)])
