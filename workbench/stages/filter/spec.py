"""S2 filter, as the planner sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.domain.errors import ToolMissing
from workbench.domain.refs import Kind
from workbench.domain.stage import Params, StageSpec


def resolve(dial: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters; the dial changes nothing here."""
    from workbench.config.params import resolve_params
    from workbench.stages.filter.params import FilterParams

    return resolve_params(FilterParams, given, stage="filter").model_dump(mode="json")


def tools_for(params: Params) -> tuple[str, ...]:
    """The compiler and what it runs in shape the output only where the compiler is asked."""
    return ("rustc", "bwrap") if params.get("compile", "off") != "off" else ()


def without(params: Params, tool: str, problem: str) -> str:
    """Only where the compiler is asked (``tools_for``), and then nothing goes on without it."""
    raise ToolMissing(f"filter is to compile, and {tool} cannot be used: {problem}", 'or set filter\'s compile = "off"')


SPEC = StageSpec(
    name="filter",
    reads=(Kind.RAW,),
    makes=Kind.FILTERED,
    resolve=resolve,
    libraries=("tree-sitter", "tree-sitter-rust", "datasketch", "numpy", "license-expression", "pyaskalono"),
    tools_for=tools_for,
    without=without,
    adapters=("sandbox",),
)
