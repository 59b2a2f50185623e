"""A stage's parameters: defaults of the dial, what was given, checked by a frozen model. Not here: the models."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.domain.errors import UserError

M = TypeVar("M", bound="StageParams")


class StageParams(BaseModel):
    """Base of every stage's parameters: frozen, and an unknown name is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def resolve_params(
    model: type[M], given: Mapping[str, Any], *, stage: str, defaults: Mapping[str, Any] | None = None
) -> M:
    """``defaults`` (of the dial) under ``given``; UserError names each wrong parameter, and the nearest right one."""
    known = model.model_fields
    unknown = sorted(set(given) - set(known))
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"it knows {', '.join(sorted(known))}"
        raise UserError(f"the {stage} stage has no parameter {unknown[0]!r}", hint)
    try:
        return model(**{**(defaults or {}), **given})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "parameters"
        shown = f"is {first['input']!r}: " if first["loc"] else ""
        hint = _nearest(first) or "correct it in the pipeline's file"
        raise UserError(f"parameter {name} of the {stage} stage {shown}{first['msg']}", hint) from None


def _nearest(error: Any) -> str:
    """For a wrong word where only some are allowed (or a wrong name inside a table): the closest one."""
    expected = str(error.get("ctx", {}).get("expected", ""))
    words = [word.strip(" '") for word in expected.replace(" or ", ",").split(",")]
    near = difflib.get_close_matches(str(error["input"]), [word for word in words if word], n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else ""
