"""The model of the pinned release, under the sampling parameters of the active state."""

from __future__ import annotations

from workbench.sdk.answers import Completion
from workbench.sdk.services import current


def complete(prompt: str, *, max_tokens: int | None = None, seed: int | None = None) -> Completion:
    """Go on with ``prompt``; what is not given is as the active state says."""
    return current().complete(prompt, max_tokens=max_tokens, seed=seed)


def fill_in_middle(prefix: str, suffix: str, *, max_tokens: int | None = None, seed: int | None = None) -> Completion:
    """The text between ``prefix`` and ``suffix``."""
    return current().fill_in_middle(prefix, suffix, max_tokens=max_tokens, seed=seed)
