"""Contracts: removed or narrowed is major, added or widened is minor, the same is patch."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from workbench.domain.errors import UserError
from workbench.domain.version import Bump
from workbench.runner.contract import compare, contract, find_tools

BASE = "@tool()\ndef f(a: int, b: str = 'x') -> dict[str, int]:\n    'Doc.'\n    return {}\n"


def contract_of(source: str) -> dict[str, Any]:
    module = ModuleType("contract_under_test")
    text = (
        "from typing import Annotated, Literal\nfrom pydantic import BaseModel, Field\nfrom workbench.sdk import tool\n"
        + source
    )
    sys.modules[module.__name__] = module
    try:
        exec(compile(text, "m", "exec"), module.__dict__)
        return contract(find_tools([module]))
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize(
    ("source", "bump"),
    [
        (BASE, Bump.PATCH),
        (BASE.replace("Doc.", "Another description."), Bump.PATCH),
        (BASE.replace("return {}", "return {'a': 1}"), Bump.PATCH),
        (BASE + BASE.replace("def f", "def g"), Bump.MINOR),
        (BASE.replace("b: str = 'x'", "b: str = 'x', c: int = 1"), Bump.MINOR),
        (BASE.replace("a: int", "a: int | str"), Bump.MINOR),
        (BASE.replace("def f", "def g"), Bump.MAJOR),
        (BASE.replace("b: str = 'x'", "b: str"), Bump.MAJOR),
        (BASE.replace("a: int, ", "a: int, c: int, "), Bump.MAJOR),
        (BASE.replace("a: int", "a: str"), Bump.MAJOR),
        (BASE.replace("a: int", "a: Annotated[int, Field(ge=1)]"), Bump.MAJOR),
        (BASE.replace("dict[str, int]", "list[int]"), Bump.MAJOR),
    ],
)
def test_a_change_of_contract_asks_for_a_bump(source: str, bump: Bump) -> None:
    found, reasons = compare(contract_of(BASE), contract_of(source))
    assert found is bump
    assert bool(reasons) == (bump is not Bump.PATCH)


def test_looser_bounds_widen_and_tighter_bounds_narrow() -> None:
    wide = contract_of(BASE.replace("a: int", "a: Annotated[int, Field(ge=0, le=10)]"))
    narrow = contract_of(BASE.replace("a: int", "a: Annotated[int, Field(ge=1, le=10)]"))
    assert compare(narrow, wide)[0] is Bump.MINOR
    assert compare(wide, narrow)[0] is Bump.MAJOR


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("@tool()\ndef f(a) -> int:\n    return 1\n", "'a' has no type"),
        ("@tool()\ndef f(a: int):\n    return 1\n", "no return type"),
        ("@tool()\nasync def f(a: int) -> int:\n    return 1\n", "a coroutine"),
        ("@tool()\ndef f(a: int) -> list[int]:\n    yield 1\n", "a generator"),
        ("@tool()\ndef f(_a: int) -> int:\n    return 1\n", "a parameter '_a'"),
        ("@tool()\ndef f(a: int, /) -> int:\n    return 1\n", "'a' cannot be given by name"),
        ("@tool()\ndef f(model_config: int) -> int:\n    return 1\n", "'model_config' cannot be given by name"),
        (
            "from collections.abc import Callable\n\n@tool()\ndef f(a: int) -> Callable[[], int]:\n    return int\n",
            "a type without a schema",
        ),
        ("@tool()\ndef f(*a: int) -> int:\n    return 1\n", "has no type"),
        (
            "@tool()\ndef f(a: object) -> int:\n    return 1\n@tool(name='f')\ndef g() -> int:\n    return 1\n",
            "two tools",
        ),
    ],
)
def test_a_tool_without_a_schema_is_refused_by_name(source: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        contract_of(source)


INNER = "class B(BaseModel):\n    x: int\n"
NESTED = INNER + "class A(BaseModel):\n    b: B\n@tool()\ndef f(a: A) -> A:\n    return a\n"
PLAIN = INNER + "@tool()\ndef f(a: int) -> B:\n    return B(x=1)\n"
TAKES = INNER + "@tool()\ndef f(a: B) -> int:\n    return 1\n"


@pytest.mark.parametrize(
    "answers", ["list[B]", "dict[str, B]", "B | None", "list[dict[str, list[B]]]", "tuple[int, B]"]
)
@pytest.mark.parametrize(
    ("change", "bump"),
    [("x: int\n    y: int", Bump.MINOR), ("y: int", Bump.MAJOR), ("x: str", Bump.MAJOR), ("x: int | None", Bump.MAJOR)],
)
def test_a_change_deep_inside_an_answer_is_seen(answers: str, change: str, bump: Bump) -> None:
    source = PLAIN.replace("-> B", f"-> {answers}")
    assert compare(contract_of(source), contract_of(source.replace("x: int", change)))[0] is bump
    assert compare(contract_of(source), contract_of(source))[0] is Bump.PATCH


@pytest.mark.parametrize(
    ("source", "change", "bump"),
    [
        (NESTED, "x: str", Bump.MAJOR),
        (NESTED, "x: int | str", Bump.MAJOR),  # it accepts more, and answers more than was promised
        (NESTED, "x: int\n    y: int = 0", Bump.MINOR),
        (NESTED, "x: int\n    y: int", Bump.MAJOR),
        (TAKES, "x: int | str", Bump.MINOR),
        (TAKES, "x: str", Bump.MAJOR),
        (TAKES, "y: int", Bump.MAJOR),
        (TAKES, "x: int = 0", Bump.MINOR),
        (TAKES, "x: int\n    y: int", Bump.MAJOR),
        (PLAIN, "x: int\n    y: int", Bump.MINOR),
        (PLAIN, "x: bool", Bump.MAJOR),
    ],
)
def test_a_change_of_a_model_is_judged_by_what_it_means(source: str, change: str, bump: Bump) -> None:
    assert compare(contract_of(source), contract_of(source.replace("x: int", change)))[0] is bump


def test_a_model_by_another_name_is_no_change() -> None:
    renamed = TAKES.replace("class B(", "class Other(").replace("a: B", "a: Other")
    assert compare(contract_of(TAKES), contract_of(renamed)) == (Bump.PATCH, ())


def test_fields_may_be_called_as_the_words_of_a_schema() -> None:
    source = "@tool()\ndef f(title: str, description: str) -> int:\n    return 1\n"
    assert compare(contract_of(source), contract_of(source.replace("title: str", "title: int")))[0] is Bump.MAJOR
