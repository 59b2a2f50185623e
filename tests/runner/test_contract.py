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
        "from typing import Annotated, Literal\nfrom pydantic import Field\nfrom workbench.sdk import tool\n" + source
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
