"""What every request must pass before a route sees it: a known Host (421), no foreign Origin (403), JSON alone (415).

A browser cannot forge either header, so a page from elsewhere reaches nothing here, not even by rebinding its name to
127.0.0.1. Not here: who may ask (there are no users on loopback) and how much (the routes count bytes as they read).
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def problem(status: int, message: str, code: str, *, param: str | None = None, retry_s: int = 0) -> JSONResponse:
    """An error in OpenAI's shape."""
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status, headers={"Retry-After": str(retry_s)} if retry_s else None)


class Guard:
    """ASGI middleware; ``hosts`` are the names under which this server may be asked, without ports."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] = LOOPBACK) -> None:
        self._app, self._hosts = app, frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or _name(f"//{hosts[0]}") not in self._hosts:
            return problem(421, "this server is not known under that Host", "wrong_host")
        if any(_name(origin) not in self._hosts for origin in origins):
            return problem(403, "requests from other sites are refused", "foreign_origin")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            return problem(415, "send the request as application/json", "wrong_content_type")
        return None


def _name(url: str) -> str:
    """The host name in a URL, lower case; empty when it is none (``null``, credentials, a bad port)."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a port that is no number
    except ValueError:
        return ""
    if parts.scheme not in ("", "http", "https") or "@" in parts.netloc or parts.path or parts.query or parts.fragment:
        return ""
    return (parts.hostname or "").lower()
