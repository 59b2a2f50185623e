"""The binding between the SDK's functions and the Runner that a call runs in: one context variable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from workbench.domain.errors import UserError
from workbench.sdk.answers import Completion, Matches


class Services(Protocol):
    """What one version offers to its tools."""

    def complete(self, prompt: str, *, max_tokens: int | None, seed: int | None) -> Completion: ...

    def fill_in_middle(self, prefix: str, suffix: str, *, max_tokens: int | None, seed: int | None) -> Completion: ...

    def search(self, pattern: str, *, language: str, code: str | None, limit: int) -> Matches: ...


_bound: ContextVar[Services | None] = ContextVar("workbench_services", default=None)


@contextmanager
def bind(services: Services) -> Iterator[None]:
    """Answer the SDK's functions with ``services`` inside this block and the calls it makes."""
    token = _bound.set(services)
    try:
        yield
    finally:
        _bound.reset(token)


def current() -> Services:
    services = _bound.get()
    if services is None:
        raise UserError(
            "workbench.sdk answers only inside a Runner",
            "start one: workbench mcp runner, or bind services yourself with workbench.sdk.services.bind",
        )
    return services
