"""The arguments of a call, held to the contract: its names, its types and nothing else. Not here: the schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from workbench.domain.errors import UserError
from workbench.pipeline.nearest import did_you_mean
from workbench.runner.contract import Tool

MAX_TOLD = 5  # wrong arguments that one error names
MAX_NAME = 80  # characters of a name that are shown


def read(tool: Tool, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the tool's function is called with: JSON, strictly of the contract's types. UserError names each wrong
    argument, and for a name that does not exist the nearest that does."""
    try:
        data = json.dumps(given, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"the arguments of {tool.info.name} are not JSON: {error}", "send JSON values") from None
    try:
        return dict(tool.arguments.model_validate_json(data, strict=True))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        wrong = "; ".join(_sentence(tool, each["loc"], each["type"], each["msg"]) for each in found[:MAX_TOLD])
        raise UserError(f"wrong arguments of {tool.info.name}: {wrong}", "see its input schema") from None


def _sentence(tool: Tool, where: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(map(str, where))[:MAX_NAME]
    if kind != "extra_forbidden" or len(where) > 1:
        return f"{name}: {message}" if name else message
    known = tool.input_schema["properties"]
    return f"there is no {name!r}, {did_you_mean(name, known) if known else 'it takes none'}"
