"""The binding between the SDK's functions and the Runner that a call runs in: two context variables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from workbench.domain.errors import UserError
from workbench.ports.call import Call
from workbench.sdk.answers import Completion, Matches


class Services(Protocol):
    """What one version offers to its tools."""

    def complete(self, prompt: str, *, max_tokens: int | None, seed: int | None) -> Completion: ...

    def fill_in_middle(self, prefix: str, suffix: str, *, max_tokens: int | None, seed: int | None) -> Completion: ...

    def search(self, pattern: str, *, language: str, code: str | None, limit: int) -> Matches: ...


_bound: ContextVar[Services | None] = ContextVar("workbench_services", default=None)
_call: ContextVar[Call | None] = ContextVar("workbench_call", default=None)


@contextmanager
def bind(services: Services, call: Call | None = None) -> Iterator[None]:
    """Answer the SDK's functions with ``services`` inside this block and the calls it makes. ``call`` says for whom,
    and is cancelled once nobody waits for it any more: the services then give it up."""
    token, token_call = _bound.set(services), _call.set(call)
    try:
        yield
    finally:
        _bound.reset(token)
        _call.reset(token_call)


def current_call() -> Call:
    """The call that asks; outside of any, one that nobody cancels."""
    return _call.get() or Call()


def current() -> Services:
    services = _bound.get()
    if services is None:
        raise UserError(
            "workbench.sdk answers only inside a Runner",
            "start one: workbench mcp runner, or bind services yourself with workbench.sdk.services.bind",
        )
    return services
