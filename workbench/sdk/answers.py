"""The values that the SDK's functions return: what a tool may return as it is."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Completion(BaseModel):
    """Generated text, with the seed and token counts that a caller may want to show."""

    model_config = ConfigDict(frozen=True)

    text: str
    finish: Literal["stop", "length", "end"] = Field(description="stop string met, token limit reached, or end token")
    seed: int = Field(description="with the same version, prompt and seed the text is the same")
    prompt_tokens: int
    completion_tokens: int


class Match(BaseModel):
    """One place in one file. Lines and columns count from 1; columns in characters."""

    model_config = ConfigDict(frozen=True)

    path: str
    line: int
    column: int
    text: str
    variables: dict[str, str] = Field(default_factory=dict, description="meta-variables of the pattern")


class Matches(BaseModel):
    """The outcome of a structural search. Only ``matched`` has matches."""

    model_config = ConfigDict(frozen=True)

    outcome: Literal["matched", "no_match", "invalid_rule", "engine_error", "timeout", "truncated"]
    matches: list[Match] = Field(default_factory=list)
    files_searched: int = 0
    detail: str = Field(default="", description="what is wrong with the rule, or what was cut off")
