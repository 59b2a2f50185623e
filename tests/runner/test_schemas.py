"""What is said to be allowed is allowed: judged by a validator, over every pair of many types and many values."""

from __future__ import annotations

import itertools
import json
import time
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Union

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from workbench.domain.contract import read_answer
from workbench.domain.reading import BadInput
from workbench.domain.version import Bump
from workbench.runner.contract import bare, compare
from workbench.runner.schemas import allows


class Point(BaseModel):
    x: int
    y: int = 0


class Point3(Point):
    z: int


class PointText(BaseModel):
    x: str
    y: int = 0


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    x: int
    y: int = 0


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


class TextTree(BaseModel):
    value: str
    children: list[TextTree] = []


class WideTree(BaseModel):
    value: int | str
    children: list[WideTree] = []


class Named(BaseModel):
    title: str
    default: int


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


TYPES: list[Any] = [
    int, float, str, bool, None, Any, bytes, datetime, Decimal,
    int | None, int | str, int | str | None, float | str, list[int], list[float], list[Any], list[int | str],
    list[Point], list[list[Point]], dict[str, int], dict[str, float], dict[str, Point], dict[str, PointText],
    dict[str, Any],
    tuple[int, str], tuple[int, ...], tuple[int, int], set[int], frozenset[str],
    Literal["a"], Literal["a", "b"], Literal[1], Literal[1, "a"], Literal[True], Colour,
    Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0, le=9)], Annotated[int, Field(ge=1, le=8)],
    Annotated[int, Field(gt=0)], Annotated[int, Field(multiple_of=2)], Annotated[str, Field(min_length=1)],
    Annotated[str, Field(max_length=2)], Annotated[str, Field(pattern="^a")], Annotated[list[int], Field(max_length=2)],
    Point, Point3, PointText, Strict, Named, Tree, TextTree, WideTree, Tree | None, Point | None, Point | int, Cat, Dog,
    Cat | Dog, Annotated[Union[Cat, Dog], Field(discriminator="kind")],  # noqa: UP007 - as people write it
    list[Annotated[Union[Cat, Dog], Field(discriminator="kind")]],  # noqa: UP007
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, 2, 5, 9, -1, 1.5, "", "a", "ab", "abc", "red", "12", "2026-01-01T00:00:00",
    [], [1], [1, 2], [1, 1], [1, 2, 3], ["a"], [1, "a"], [1.5], [None], [{"x": 1}], [[{"x": 1}]], [[{"x": "a"}]],
    {}, {"x": 1}, {"x": "a"}, {"x": 1, "y": 2}, {"x": 1, "y": "a"}, {"x": 1, "y": 2, "z": 3}, {"x": 1, "w": None},
    {"a": 1}, {"a": 1.5}, {"a": "b"}, {"a": {"x": 1}}, {"a": {"x": "b"}}, {"title": "t", "default": 1},
    {"value": 1}, {"value": "a"}, {"value": 1, "children": [{"value": 2}]}, {"value": 1, "children": [{"value": "b"}]},
    {"value": "a", "children": [{"value": "b"}]}, {"kind": "cat", "lives": 9}, {"kind": "dog", "tricks": ["sit"]},
    [{"kind": "cat", "lives": 9}], [{"kind": "dog", "tricks": []}], {"kind": "cat", "tricks": []},
]  # fmt: skip
MODES = ("validation", "serialization")


def schemas(mode: Any) -> list[dict[str, Any]]:
    return [bare(TypeAdapter(kind).json_schema(mode=mode)) for kind in TYPES]


def valid(schema: dict[str, Any]) -> list[bool]:
    validator = jsonschema.Draft202012Validator(schema)
    return [validator.is_valid(value) for value in VALUES]


def test_every_schema_allows_what_it_allows() -> None:
    for schema, closed in itertools.product([s for mode in MODES for s in schemas(mode)], [True, False]):
        assert allows(schema, schema, of_new=schema, of_old=schema, closed=closed), schema


def test_whatever_is_said_to_be_allowed_is_valid() -> None:
    judged = {mode: [valid(schema) for schema in schemas(mode)] for mode in MODES}
    shown = 0
    for mode in MODES:
        found = list(zip(schemas(mode), judged[mode], strict=True))
        for (new, valid_new), (old, valid_old) in itertools.product(found, repeat=2):
            for closed in (True, False):
                if allows(new, old, of_new=new, of_old=old, closed=closed):
                    shown += 1
                    assert all(a for a, b in zip(valid_new, valid_old, strict=True) if b), (new, old)
    assert shown > 500


@pytest.mark.parametrize(
    ("new", "old", "is_allowed"),
    [
        (int | str, int, True),
        (int, int | str, False),
        (float, int, True),
        (int, float, False),
        (int | None, int, True),
        (Any, Tree, True),
        (Tree, Any, False),
        (list[float], list[int], True),
        (list[Point], list[PointText], False),
        (dict[str, Any], dict[str, int], True),
        (Literal["a", "b"], Literal["a"], True),
        (Literal["a"], Literal["a", "b"], False),
        (str, Literal["a"], True),
        (int, Literal[True], False),
        (WideTree, Tree, True),
        (Tree, WideTree, False),
        (TextTree, Tree, False),
        (Cat | Dog, Cat, True),
        (Cat, Cat | Dog, False),
        (Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1, le=8)], True),
        (Annotated[int, Field(ge=1)], int, False),
        (Annotated[str, Field(pattern="^a")], str, False),
    ],
)
def test_what_is_plain_is_shown(new: Any, old: Any, is_allowed: bool) -> None:
    a, b = (bare(TypeAdapter(kind).json_schema()) for kind in (new, old))
    assert allows(a, b, of_new=a, of_old=b, closed=True) is is_allowed


def test_a_field_that_is_not_named_is_allowed_only_where_that_is_asked() -> None:
    three, two = (bare(TypeAdapter(kind).json_schema()) for kind in (Point3, Point))
    assert not allows(two, three, of_new=two, of_old=three, closed=True)
    assert allows(two, three, of_new=two, of_old=three, closed=False)
    assert not allows(three, two, of_new=three, of_old=two, closed=False)


def tower(kind: str, height: int, width: int = 2) -> dict[str, Any]:
    """Definitions that each refer ``width`` times to the next."""
    defs: dict[str, Any] = {
        f"L{n}": {kind: [{"$ref": f"#/$defs/L{n + 1}"} for _ in range(width)]} for n in range(height)
    }
    return {"$ref": "#/$defs/L0", "$defs": {**defs, f"L{height}": {"type": "string", "odd": height}}}


ENDLESS: dict[str, Any] = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}
LOOP: dict[str, Any] = {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}}}
HOSTILE = [
    (tower("anyOf", 60), tower("oneOf", 61)),
    (tower("prefixItems", 50), tower("prefixItems", 51)),
    (ENDLESS, {"type": "string"}),
    ({"type": "string"}, ENDLESS),
    (LOOP, {"type": "string"}),
    ({"type": "string"}, LOOP),
    ({"enum": [f"{n}" for n in range(40_000)]}, {"enum": [f"x{n}" for n in range(40_000)]}),
    (
        {"anyOf": [{"const": n, "odd": ["x"] * 90} for n in range(500)], "a": 1},
        {"anyOf": [{"enum": [n]} for n in range(9000)]},
    ),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_schemas_that_are_much_work_are_given_up_within_a_bound(number: int, slowness: float) -> None:
    new, old = HOSTILE[number]
    start_s = time.process_time()
    found, reasons = compare(*({"tools": {"a": {"input": schema, "output": schema}}} for schema in (old, new)))
    assert time.process_time() - start_s < 8 * slowness
    assert found is Bump.MAJOR
    assert reasons


def test_the_reasons_of_a_comparison_are_few_and_plain() -> None:
    old = {"properties": {f"\x1b[2J{n}": {"type": "string"} for n in range(20_000)}}
    new = {"properties": {f"é{n}": {"type": "string"} for n in range(3)}}
    found, reasons = compare(*({"tools": {"a": {"input": schema, "output": {}}}} for schema in (old, new)))
    assert found is Bump.MAJOR
    assert len(reasons) == 51
    assert reasons[-1] == "and 19953 more"
    assert all(reason.isprintable() and len(reason) <= 301 for reason in reasons)


KEYWORDS = [
    "properties",
    "anyOf",
    "oneOf",
    "$ref",
    "$defs",
    "required",
    "enum",
    "const",
    "items",
    "minimum",
    "maxLength",
    "type",
    "additionalProperties",
    "prefixItems",
    "discriminator",
    "format",
    "uniqueItems",
]
PLAIN = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["string", "integer", "null", "#/$defs/a", "a"])
)
ODD = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
    ),
    max_leaves=12,
)
ODD_SCHEMAS = st.dictionaries(st.sampled_from(KEYWORDS), ODD, max_size=4)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(ODD_SCHEMAS, ODD_SCHEMAS, st.booleans())
def test_whatever_the_record_s_reader_lets_pass_can_be_compared(
    one: dict[str, Any], other: dict[str, Any], whole: bool
) -> None:
    contracts = []
    for schema in (one, other):
        field = schema if whole else {"properties": {"a": schema}, "$defs": {"a": schema}}
        told = {"format": 1, "contract": {"format": 1, "tools": {"f": {"input": field, "output": field}}}, "why": ""}
        try:
            contracts.append(read_answer(json.dumps(told).encode())[0])
        except BadInput:
            return
    assert None not in contracts
    assert compare(contracts[0], contracts[0])[0] in (Bump.PATCH, Bump.MAJOR)  # type: ignore[arg-type]
    compare(contracts[0], contracts[1])  # type: ignore[arg-type]
