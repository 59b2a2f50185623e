"""The contract of a version: its tools and their schemas as canonical JSON, and how two contracts compare.

DESIGN 3.3: removed or narrowed is major, added or widened is minor, the same is patch. Descriptions are not part of it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, TypeAdapter, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import UserError
from workbench.domain.version import Bump
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
    except (NameError, TypeError, PydanticSchemaGenerationError, PydanticUndefinedAnnotation) as error:
        raise UserError(f"tool {info.name!r} has a type without a schema: {error}", "use JSON-able types") from error
    return Tool(
        info=info,
        function=function,
        signature=signature.replace(parameters=resolved, return_annotation=hints["return"]),
        description=inspect.getdoc(function) or "",
        input_schema=model.model_json_schema(),
        output_schema=output,
    )


def contract(tools: Mapping[str, Tool]) -> dict[str, Any]:
    """Canonical JSON value: what a caller may rely on."""
    return {
        "format": FORMAT,
        "tools": {
            name: {"input": _bare(tool.input_schema), "output": _bare(tool.output_schema)}
            for name, tool in sorted(tools.items())
        },
    }


def contract_bytes(tools: Mapping[str, Tool]) -> bytes:
    return canonical_lines(contract(tools))


def _bare(schema: Any, inside_properties: bool = False) -> Any:
    if isinstance(schema, Mapping):
        return {
            key: _bare(value, inside_properties=key in ("properties", "$defs") and not inside_properties)
            for key, value in schema.items()
            if inside_properties or key not in _SILENT
        }
    if isinstance(schema, list):
        return [_bare(value) for value in schema]
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
    """Differences of two object schemas: (breaking, compatible).

    For what is accepted (input), a new required field or a changed type breaks; a new optional field widens. For what
    is answered (output), a removed field or a changed type breaks; a new field widens. Any other difference of a
    field's schema counts as breaking: a rule that guesses that it is harmless would be wrong one day.
    """
    breaking: list[str] = []
    compatible: list[str] = []
    a, b = dict(old.get("properties", {})), dict(new.get("properties", {}))
    needed_before, needed_after = set(old.get("required", ())), set(new.get("required", ()))
    for field in sorted(a.keys() | b.keys()):
        if field not in b:
            breaking.append(f"{where}: field {field} was removed")
        elif field not in a:
            (breaking if accepts and field in needed_after else compatible).append(f"{where}: field {field} was added")
        elif _with_definitions(a[field], old) != _with_definitions(b[field], new):
            wider = _is_wider(a[field], b[field]) if accepts else _is_wider(b[field], a[field])
            (compatible if wider else breaking).append(f"{where}: field {field} changed")
        elif accepts and field in needed_after - needed_before:
            breaking.append(f"{where}: field {field} became required")
        elif accepts and field in needed_before - needed_after:
            compatible.append(f"{where}: field {field} became optional")
    strip = ("properties", "required", "$defs")
    rest = [{k: v for k, v in schema.items() if k not in strip} for schema in (old, new)]
    if rest[0] != rest[1]:
        breaking.append(f"{where}: the kind of value changed")
    return breaking, compatible


def _with_definitions(field: Any, schema: Schema) -> Any:
    """A field's schema with its references resolved one level deep, so that a change in a definition is seen."""
    if isinstance(field, Mapping):
        reference = field.get("$ref")
        if isinstance(reference, str):
            return [reference, schema.get("$defs", {}).get(reference.rsplit("/", 1)[-1])]
        return {key: _with_definitions(value, schema) for key, value in field.items()}
    if isinstance(field, list):
        return [_with_definitions(value, schema) for value in field]
    return field


def _is_wider(old: Any, new: Any) -> bool:
    """``new`` accepts all that ``old`` does: a further alternative, a further enum value, or looser bounds."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return False
    alternatives = [_alternatives(schema) for schema in (old, new)]
    if all(choice in alternatives[1] for choice in alternatives[0]):
        return True
    if "enum" in old and "enum" in new and set(map(str, old["enum"])) <= set(map(str, new["enum"])):
        return {k: v for k, v in old.items() if k != "enum"} == {k: v for k, v in new.items() if k != "enum"}
    lower = ("minimum", "exclusiveMinimum", "minLength", "minItems")
    upper = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
    bounds = lower + upper
    if {k: v for k, v in old.items() if k not in bounds} != {k: v for k, v in new.items() if k not in bounds}:
        return False
    return all(k in old and new[k] <= old[k] for k in lower if k in new) and all(
        k in old and new[k] >= old[k] for k in upper if k in new
    )


def _alternatives(schema: Mapping[str, Any]) -> list[Any]:
    return list(schema["anyOf"]) if set(schema) == {"anyOf"} else [schema]
