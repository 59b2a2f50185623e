"""The arguments of a call: what the contract allows reaches the function, anything else is named."""

from __future__ import annotations

import enum
from datetime import date
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from workbench.domain.errors import UserError
from workbench.runner.arguments import read
from workbench.runner.contract import Tool, find_tools
from workbench.sdk import tool


class Point(BaseModel):
    x: int
    y: float = 0


class Colour(enum.Enum):
    RED = "red"


@tool()
def plain(prompt: str, max_tokens: Annotated[int | None, Field(ge=1)] = None, seed: int = 7) -> str: ...


@tool()
def rich(
    point: Point,
    colour: Colour = Colour.RED,
    day: date = date(2024, 1, 1),
    pairs: tuple[tuple[str, int], ...] = (),
    kind: Literal["a", "b"] = "a",
    wide: Annotated[float, Field(alias="Wide")] = 1.0,
    copy: tuple[int, ...] = (),
) -> str: ...


@tool()
def nothing() -> str: ...


def of(function: Any) -> Tool:
    module = ModuleType(__name__)
    vars(module)[function.__name__] = function
    return find_tools([module])[function.__name__]


@pytest.mark.filterwarnings("ignore:Field name .copy.")
@pytest.mark.parametrize(
    ("function", "given", "got"),
    [
        (plain, {"prompt": "fn"}, {"prompt": "fn", "max_tokens": None, "seed": 7}),
        (plain, {"prompt": "", "max_tokens": None, "seed": 2**70}, {"prompt": "", "max_tokens": None, "seed": 2**70}),
        (plain, {"prompt": "null", "max_tokens": 3}, {"prompt": "null", "max_tokens": 3, "seed": 7}),
        (nothing, {}, {}),
        (
            rich,
            {"point": {"x": 1, "y": 2}, "colour": "red", "day": "2025-02-03", "pairs": [["a", 1]], "Wide": 2},
            {
                "point": Point(x=1, y=2.0),
                "colour": Colour.RED,
                "day": date(2025, 2, 3),
                "pairs": (("a", 1),),
                "kind": "a",
                "wide": 2.0,
                "copy": (),
            },
        ),
    ],
)
def test_what_the_contract_allows_reaches_the_function(function: Any, given: dict[str, Any], got: Any) -> None:
    assert read(of(function), given) == got


@pytest.mark.filterwarnings("ignore:Field name .copy.")
@pytest.mark.parametrize(
    ("function", "given", "says"),
    [
        (plain, {"prompt": "fn", "max_token": 1}, "there is no 'max_token', did you mean 'max_tokens'?"),
        (plain, {"prompt": "fn", "zzz": 1}, "there is no 'zzz', known: prompt, max_tokens, seed"),
        (plain, {"promt": "fn"}, "prompt: Field required; there is no 'promt', did you mean 'prompt'?"),
        (nothing, {"a": 1}, "there is no 'a', it takes none"),
        (plain, {"prompt": "fn", "max_tokens": "3"}, "max_tokens: Input should be a valid integer"),
        (plain, {"prompt": "fn", "max_tokens": True}, "max_tokens: Input should be a valid integer"),
        (plain, {"prompt": "fn", "max_tokens": 0}, "max_tokens: Input should be greater than"),
        (plain, {"prompt": "fn", "seed": None}, "seed: Input should be a valid integer"),
        (plain, {"prompt": 1}, "prompt: Input should be a valid string"),
        (plain, {"prompt": "fn", "seed": float("nan")}, "not JSON"),
        (plain, {"prompt": b"fn"}, "not JSON"),
        (rich, {"point": '{"x": 1}'}, "point: "),
        (rich, {"point": {"x": "1"}}, "point.x: Input should be a valid integer"),
        (rich, {"point": {"x": 1}, "kind": "c"}, "kind: Input should be 'a' or 'b'"),
        (rich, {"point": {"x": 1}, "wide": 2}, "there is no 'wide', did you mean 'Wide'?"),
        (rich, {"point": {"x": 1}, "pairs": "[]"}, "pairs: Input should be a valid array"),
    ],
)
def test_anything_else_is_named_with_the_nearest_that_is_right(function: Any, given: Any, says: str) -> None:
    with pytest.raises(UserError) as raised:
        read(of(function), given)
    assert says in raised.value.what
    assert function.__name__ in raised.value.what


def test_an_error_is_bounded_however_many_arguments_are_wrong() -> None:
    with pytest.raises(UserError) as raised:
        read(of(plain), {"prompt": "fn"} | {f"{n}" * 1000: 1 for n in range(1000)})
    assert len(raised.value.what) < 1000
