"""``@tool`` marks a function of ``agents/`` as a tool of the Runner. It changes nothing about the function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
MARK = "__workbench_tool__"


@dataclass(frozen=True)
class ToolInfo:
    name: str
    title: str
    read_only: bool


def tool(*, name: str = "", title: str = "", read_only: bool = True) -> Callable[[F], F]:
    """Offer the function under its own name (or ``name``). Signature is schema, docstring is description."""

    def mark(function: F) -> F:
        setattr(function, MARK, ToolInfo(name or function.__name__, title, read_only))
        return function

    return mark
