"""The Runner's tools: completion, fill-in-the-middle and structural search, under one pinned version."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from workbench.sdk import Completion, Matches, code, model, tool

Tokens = Annotated[int | None, Field(ge=1, le=4096, description="most tokens to generate; as the active state says")]
Seed = Annotated[int | None, Field(ge=0, lt=2**32, description="as the active state says")]


@tool(title="Complete code")
def complete(prompt: str, max_tokens: Tokens = None, seed: Seed = None) -> Completion:
    """Go on with the prompt. The same version, prompt and seed give the same text."""
    return model.complete(prompt, max_tokens=max_tokens, seed=seed)


@tool(title="Fill in the middle")
def fill_in_middle(prefix: str, suffix: str, max_tokens: Tokens = None, seed: Seed = None) -> Completion:
    """Write the text between a prefix and a suffix, as an editor asks at the cursor."""
    return model.fill_in_middle(prefix, suffix, max_tokens=max_tokens, seed=seed)


@tool(title="Search code by structure")
def search(
    pattern: Annotated[str, Field(description="ast-grep pattern, for example $X.unwrap()")],
    language: Annotated[str, Field(description="rust, python, javascript, typescript or java")] = "rust",
    source: Annotated[str | None, Field(description="code to search; none: the files of this version")] = None,
    limit: Annotated[int, Field(ge=1, le=1000)] = 50,
) -> Matches:
    """Find code by its syntax tree. The outcome is matched, no_match, invalid_rule, truncated or an engine's error."""
    return code.search(pattern, language=language, code=source, limit=limit)
