"""The binding between the SDK's functions and the Runner that a call runs in: two context variables."""

from __future__ import annotations

import threading
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
_gone: ContextVar[threading.Event | None] = ContextVar("workbench_gone", default=None)


@contextmanager
def bind(services: Services, gone: threading.Event | None = None) -> Iterator[None]:
    """Answer the SDK's functions with ``services`` inside this block and the calls it makes. ``gone`` is set once
    nobody waits for the call any more: the services then give it up."""
    token, token_gone = _bound.set(services), _gone.set(gone)
    try:
        yield
    finally:
        _bound.reset(token)
        _gone.reset(token_gone)


def is_gone() -> bool:
    """Whether nobody waits for the call that asks."""
    gone = _gone.get()
    return gone is not None and gone.is_set()


def current() -> Services:
    services = _bound.get()
    if services is None:
        raise UserError(
            "workbench.sdk answers only inside a Runner",
            "start one: workbench mcp runner, or bind services yourself with workbench.sdk.services.bind",
        )
    return services
