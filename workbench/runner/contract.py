"""The contract of a version: its tools and their schemas as canonical JSON, and how two contracts compare.

DESIGN 3.3: removed or narrowed is major, added or widened is minor, the same is patch. Descriptions are not part of it.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from workbench.domain.contract import FORMAT, MAX_TOOLS, NAME, Contract
from workbench.domain.errors import UserError
from workbench.domain.reading import printed
from workbench.domain.version import Bump
from workbench.runner.schemas import Budget, allows
from workbench.sdk.tools import MARK, ToolInfo

MAX_REASONS = 50  # sentences of one comparison
Schema = Mapping[str, Any]
_SILENT = ("title", "description", "examples", "default")  # of a schema: what no caller can trip over


@dataclass(frozen=True)
class Tool:
    """A function of ``agents/`` that is offered: how it is called and what it answers."""

    info: ToolInfo
    function: Callable[..., Any]
    signature: inspect.Signature  # with resolved annotations
    description: str
    arguments: type[BaseModel]  # what ``input_schema`` is the schema of
    input_schema: Schema
    output_schema: Schema


def find_tools(modules: Iterable[object]) -> dict[str, Tool]:
    """The tools that modules define (not those they merely import), by name, sorted. UserError for two of one name, for
    a name that MCP does not have, and for more than any agent can choose from."""
    marked: dict[str, tuple[ToolInfo, Callable[..., Any]]] = {}
    for module in modules:
        for function in list(vars(module).values()):
            info = getattr(function, MARK, None)
            if not isinstance(info, ToolInfo) or function.__module__ != getattr(module, "__name__", ""):
                continue
            if info.name in marked and marked[info.name][1] is not function:
                raise UserError(f"two tools are called {info.name!r}", "give one of them another name: @tool(name=...)")
            marked[info.name] = (info, function)
    if len(marked) > MAX_TOOLS:
        raise UserError(f"agents/ defines {len(marked)} tools, {MAX_TOOLS} at most are offered", "join some of them")
    for name in marked:
        if not re.fullmatch(NAME, name):
            raise UserError(
                f"a tool cannot be called {name!r}", "use letters, digits, '_', '.' and '-': @tool(name=...)"
            )
    return {name: _describe(*marked[name]) for name in sorted(marked)}


def _describe(info: ToolInfo, function: Callable[..., Any]) -> Tool:
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise UserError(
            f"tool {info.name!r} is a coroutine or a generator", "write a plain function: each call has its own thread"
        )
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        signature = inspect.signature(function)
        fields: dict[str, Any] = {}
        resolved = []
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.POSITIONAL_ONLY or name == "model_config":
                raise UserError(
                    f"tool {info.name!r}: parameter {name!r} cannot be given by name",
                    "call it otherwise: no `/` after it, and not model_config",
                )
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or name not in hints:
                raise UserError(
                    f"tool {info.name!r}: parameter {name!r} has no type, so it has no schema",
                    "annotate every parameter; *args and **kwargs are not possible",
                )
            if name.startswith("_"):
                raise UserError(f"tool {info.name!r} has a parameter {name!r}", "call it without the underscore")
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (hints[name], default)
            resolved.append(parameter.replace(annotation=hints[name]))
        if "return" not in hints:
            raise UserError(f"tool {info.name!r} has no return type", "annotate what it returns; it becomes the schema")
        model = create_model(info.name, __config__=ConfigDict(extra="forbid"), **fields)
        output = TypeAdapter(hints["return"]).json_schema(mode="serialization")
        arguments = model.model_json_schema()
    except (NameError, TypeError, PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise UserError(f"tool {info.name!r} has a type without a schema: {error}", "use JSON-able types") from error
    return Tool(
        info=info,
        function=function,
        signature=signature.replace(parameters=resolved, return_annotation=hints["return"]),
        description=inspect.getdoc(function) or "",
        arguments=model,
        input_schema=arguments,
        output_schema=output,
    )


def contract(tools: Mapping[str, Tool]) -> dict[str, Any]:
    """Canonical JSON value: what a caller may rely on."""
    return {
        "format": FORMAT,
        "tools": {
            name: {"input": bare(tool.input_schema), "output": bare(tool.output_schema)}
            for name, tool in sorted(tools.items())
        },
    }


def bare(schema: Any, inside_properties: bool = False) -> Any:
    """A schema without what describes it, as the contract has it."""
    if isinstance(schema, Mapping):
        return {
            key: bare(value, inside_properties=key in ("properties", "$defs") and not inside_properties)
            for key, value in schema.items()
            if inside_properties or key not in _SILENT
        }
    if isinstance(schema, list):
        return [bare(value) for value in schema]
    return schema


def compare(old: Contract, new: Contract) -> tuple[Bump, tuple[str, ...]]:
    """The bump that a change of contract asks for, and a sentence for each difference. Both may be anything that
    ``domain.contract`` reads: what takes too long to show counts as breaking."""
    budget = Budget()
    before, after = old["tools"], new["tools"]
    major: list[str] = [f"tool {name} was removed" for name in sorted(before.keys() - after.keys())]
    minor: list[str] = [f"tool {name} was added" for name in sorted(after.keys() - before.keys())]
    for name in sorted(before.keys() & after.keys()):
        for side, accepts in (("input", True), ("output", False)):
            narrower, wider = _compare(
                before[name][side], after[name][side], f"{name} {side}", accepts=accepts, budget=budget
            )
            major += narrower
            minor += wider
    bump = Bump.MAJOR if major else Bump.MINOR if minor else Bump.PATCH
    reasons = [_plain(each) for each in (major + minor)[:MAX_REASONS]]
    if (left := len(major) + len(minor) - MAX_REASONS) > 0:
        reasons.append(f"and {left} more")
    return bump, tuple(reasons)


def _plain(reason: str) -> str:
    """With the names of fields, which may be any text, on one short line."""
    return reason if reason.isprintable() and len(reason) <= 300 else printed(reason, 300)


def _compare(old: Schema, new: Schema, where: str, *, accepts: bool, budget: Budget) -> tuple[list[str], list[str]]:
    """Differences of two schemas: (breaking, compatible).

    For what is accepted (input), a new required field or a narrowed one breaks; a new optional field widens. For what
    is answered (output), a removed field or a widened one breaks; a new field widens. What cannot be shown to be
    harmless counts as breaking: a rule that guesses would be wrong one day.
    """
    if "properties" not in old or "properties" not in new:
        return _judged(old, new, f"{where}: the kind of value", of_old=old, of_new=new, accepts=accepts, budget=budget)
    breaking: list[str] = []
    compatible: list[str] = []
    a, b = dict(old["properties"]), dict(new["properties"])
    needed_before, needed_after = set(old.get("required", ())), set(new.get("required", ()))
    for field in sorted(a.keys() | b.keys()):
        if field not in b:
            breaking.append(f"{where}: field {field} was removed")
        elif field not in a:
            (breaking if accepts and field in needed_after else compatible).append(f"{where}: field {field} was added")
        else:
            judged = _judged(
                a[field], b[field], f"{where}: field {field}", of_old=old, of_new=new, accepts=accepts, budget=budget
            )
            breaking += judged[0]
            compatible += judged[1]
            if field in needed_after - needed_before:
                (breaking if accepts else compatible).append(f"{where}: field {field} became required")
            elif field in needed_before - needed_after:
                (compatible if accepts else breaking).append(f"{where}: field {field} became optional")
    ours = ("properties", "required", "$defs")
    rest = [{key: value for key, value in schema.items() if key not in ours} for schema in (old, new)]
    if rest[0] != rest[1]:
        breaking.append(f"{where}: the kind of value changed")
    return breaking, compatible


def _judged(
    old: Schema, new: Schema, what: str, *, of_old: Schema, of_new: Schema, accepts: bool, budget: Budget
) -> tuple[list[str], list[str]]:
    wider = allows(new, old, of_new=of_new, of_old=of_old, closed=True, budget=budget)
    narrower = allows(old, new, of_new=of_old, of_old=of_new, closed=True, budget=budget)
    if wider and narrower:
        return [], []
    harmless = wider if accepts else allows(old, new, of_new=of_old, of_old=of_new, closed=False, budget=budget)
    return ([], [f"{what} changed"]) if harmless else ([f"{what} changed"], [])
