"""The contract of a version: its tools and their schemas as canonical JSON, and how two contracts compare.

DESIGN 3.3: removed or narrowed is major, added or widened is minor, the same is patch. Descriptions are not part of it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import UserError
from workbench.domain.version import Bump
from workbench.runner.schemas import allows
from workbench.sdk.tools import MARK, ToolInfo

FORMAT = 1
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
    """The tools that modules define (not those they merely import), by name, sorted. UserError for two of one name."""
    tools: dict[str, Tool] = {}
    for module in modules:
        for function in vars(module).values():
            info = getattr(function, MARK, None)
            if not isinstance(info, ToolInfo) or function.__module__ != getattr(module, "__name__", ""):
                continue
            if info.name in tools and tools[info.name].function is not function:
                raise UserError(f"two tools are called {info.name!r}", "give one of them another name: @tool(name=...)")
            tools[info.name] = _describe(info, function)
    return dict(sorted(tools.items()))


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


def contract_bytes(tools: Mapping[str, Tool]) -> bytes:
    return canonical_lines(contract(tools))


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


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Bump, tuple[str, ...]]:
    """The bump that a change of contract asks for, and a sentence for each difference."""
    before, after = old["tools"], new["tools"]
    major: list[str] = [f"tool {name} was removed" for name in sorted(before.keys() - after.keys())]
    minor: list[str] = [f"tool {name} was added" for name in sorted(after.keys() - before.keys())]
    for name in sorted(before.keys() & after.keys()):
        for side, accepts in (("input", True), ("output", False)):
            narrower, wider = _compare(before[name][side], after[name][side], f"{name} {side}", accepts=accepts)
            major += narrower
            minor += wider
    bump = Bump.MAJOR if major else Bump.MINOR if minor else Bump.PATCH
    return bump, tuple(major + minor)


def _compare(old: Schema, new: Schema, where: str, *, accepts: bool) -> tuple[list[str], list[str]]:
    """Differences of two schemas: (breaking, compatible).

    For what is accepted (input), a new required field or a narrowed one breaks; a new optional field widens. For what
    is answered (output), a removed field or a widened one breaks; a new field widens. What cannot be shown to be
    harmless counts as breaking: a rule that guesses would be wrong one day.
    """
    if "properties" not in old or "properties" not in new:
        return _judged(old, new, f"{where}: the kind of value", of_old=old, of_new=new, accepts=accepts)
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
            judged = _judged(a[field], b[field], f"{where}: field {field}", of_old=old, of_new=new, accepts=accepts)
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
    old: Schema, new: Schema, what: str, *, of_old: Schema, of_new: Schema, accepts: bool
) -> tuple[list[str], list[str]]:
    wider = allows(new, old, of_new=of_new, of_old=of_old, closed=True)
    narrower = allows(old, new, of_new=of_old, of_old=of_new, closed=True)
    if wider and narrower:
        return [], []
    harmless = wider if accepts else allows(old, new, of_new=of_old, of_old=of_new, closed=False)
    return ([], [f"{what} changed"]) if harmless else ([f"{what} changed"], [])
