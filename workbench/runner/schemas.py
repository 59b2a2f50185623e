"""Whether all that one JSON schema allows, another allows too: what it means to narrow or to widen. Pure.

The answer is True only where it can be shown from the keywords that pydantic writes. What is not understood counts as
not shown, so that a change is taken for a breaking one rather than for none. Source: JSON Schema 2020-12.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_UNDERSTOOD = frozenset(
    (*_LOWER, *_UPPER, "$defs", "type", "enum", "const", "properties", "required", "additionalProperties", "items")
    + ("prefixItems",)
)
MAX_DEPTH = 100  # of values in values, and of references to references
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


class Budget:
    """How much work a comparison may be, in values looked at. Schemas come from code that nobody vouches for, and a few
    definitions that refer to each other twice are worth 2^n steps. When it is spent, nothing more is shown."""

    def __init__(self, left: int = 3_000_000) -> None:
        self.left = left

    def spend(self, work: int) -> bool:
        """Whether there is enough left for it."""
        self.left -= work
        return self.left > 0

    def equal(self, one: Any, other: Any) -> bool:
        return self.spend(self._weight(one)) and bool(one == other)

    def _weight(self, value: Any) -> int:
        """Roughly how many values there are in one, as far as there is budget for them."""
        waiting, weight = [value], 0
        while waiting and weight < self.left:
            value = waiting.pop()
            weight += 1
            if isinstance(value, str):
                weight += len(value) >> 10
            elif isinstance(value, Mapping | list):
                waiting += value.values() if isinstance(value, Mapping) else value
        return weight


def allows(
    new: Schema, old: Schema, *, of_new: Schema, of_old: Schema, closed: bool, budget: Budget | None = None
) -> bool:
    """Whether ``new`` allows every value that ``old`` does; ``of_new`` and ``of_old`` hold their definitions.

    ``closed``: a field that ``new`` does not name is not allowed, whatever it says of others. Else it is, where nothing
    forbids it.
    """
    return _Pair(of_new.get("$defs", {}), of_old.get("$defs", {}), closed, budget or Budget()).allows(new, old)


class _Pair:
    """Two schemas with their definitions. ``_assumed`` pairs of references are being shown already: recursion ends."""

    def __init__(self, defs_new: Schema, defs_old: Schema, closed: bool, budget: Budget) -> None:
        self._defs_new, self._defs_old, self._closed, self._budget = defs_new, defs_old, closed, budget
        self._assumed: set[tuple[str, str]] = set()
        self._depth = 0

    def allows(self, new: Schema, old: Schema) -> bool:
        if self._depth == MAX_DEPTH or not self._budget.spend(1 + len(new) + len(old)):
            return False
        self._depth += 1
        try:
            return self._allows(new, old)
        finally:
            self._depth -= 1

    def _allows(self, new: Schema, old: Schema) -> bool:
        if "$ref" in new or "$ref" in old:
            return self._referred(new, old)
        if not new.keys() - {"$defs"}:
            return True
        if (choices := _choices(old)) is not None:
            others = _others(old)
            return all(self.allows(new, {**others, **choice}) for choice in choices)
        if (choices := _choices(new)) is not None:
            others = _others(new)
            return any(self.allows(choice, old) for choice in choices) and (not others or self.allows(others, old))
        if (values := _values(old)) is not None:
            return all(self._takes(new, value) for value in values)
        return (
            _values(new) is None
            and new.get("type") in (None, old.get("type"), "number" if old.get("type") == "integer" else None)
            and all(key in old and new[key] <= old[key] for key in _LOWER if key in new)
            and all(key in old and new[key] >= old[key] for key in _UPPER if key in new)
            and all(self._budget.equal(new[key], old.get(key)) for key in new.keys() - _UNDERSTOOD)
            and self._fields(new, old)
            and self._items(new, old)
        )

    def _referred(self, new: Schema, old: Schema) -> bool:
        pair = (new.get("$ref", ""), old.get("$ref", ""))
        if pair in self._assumed:
            return True
        if all(pair):
            self._assumed.add(pair)
        shown = self.allows(_resolved(new, self._defs_new), _resolved(old, self._defs_old))
        self._assumed.discard(pair)
        return shown

    def _fields(self, new: Schema, old: Schema) -> bool:
        known, given = new.get("properties", {}), old.get("properties", {})
        rest, rest_before = new.get("additionalProperties", True), old.get("additionalProperties", True)
        if not set(new.get("required", ())) <= set(old.get("required", ())):
            return False
        for name, field in given.items():
            if name not in known and (self._closed or rest is False):
                return False
            wanted = known.get(name, rest)
            if isinstance(wanted, Mapping) and not self.allows(wanted, field):
                return False
        if rest_before is False or rest is True:
            return True
        return isinstance(rest, Mapping) and isinstance(rest_before, Mapping) and self.allows(rest, rest_before)

    def _items(self, new: Schema, old: Schema) -> bool:
        first, first_before = new.get("prefixItems"), old.get("prefixItems")
        if first is not None or first_before is not None:
            if not first or not first_before or len(first) != len(first_before):
                return False
            if not all(map(self.allows, first, first_before)):
                return False
        wanted, given = new.get("items"), old.get("items")
        if not isinstance(wanted, Mapping):
            return wanted is None or wanted == given
        return isinstance(given, Mapping) and self.allows(wanted, given)

    def _takes(self, schema: Schema, value: Any) -> bool:
        """Whether a schema allows a value; of schemas that are no enumeration, those that have nothing but a type."""
        if (values := _values(schema)) is not None:
            return any(type(value) is type(known) and self._budget.equal(value, known) for known in values)
        return schema.keys() == {"type"} and schema["type"] == _TYPES.get(type(value))


def _resolved(schema: Schema, defs: Schema) -> Schema:
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return schema
    found: Schema = defs.get(reference.rsplit("/", 1)[-1], {"not understood": reference})
    return {**found, **{key: value for key, value in schema.items() if key != "$ref"}}


def _choices(schema: Schema) -> list[Schema] | None:
    """Alternatives."""
    found = [list(schema[key]) for key in ("anyOf", "oneOf") if key in schema]
    return found[0] if len(found) == 1 else None


def _others(schema: Schema) -> dict[str, Any]:
    """What a schema asks for beside its alternatives."""
    return {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf", "discriminator", "$defs")}


def _values(schema: Schema) -> list[Any] | None:
    """The values of an enumeration."""
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None
