"""What every request must pass before a route sees it: a known Host (421), no foreign site (403), JSON alone (415).

A page cannot forge Host, Origin and Sec-Fetch-Site, so one from elsewhere reaches nothing here: not by rebinding its
name to 127.0.0.1, and not by an image or a link whose answer it could not read. Not here: who may ask (there are no
users on loopback) and how much (the routes count bytes as they read).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
EVERYWHERE = frozenset({"0.0.0.0", "::"})  # addresses to listen on, and the names of no machine
Refuse = Callable[[int, str, str], JSONResponse]


def names(host: str) -> frozenset[str]:
    """The names under which a server on ``host`` may be asked: loopback's, and its own where that is one."""
    return LOOPBACK | ({host.lower()} - EVERYWHERE)


def problem(
    status: int,
    message: str,
    code: str,
    *,
    param: str | None = None,
    retry_s: int = 0,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error in OpenAI's shape."""
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    retry = {"Retry-After": str(retry_s)} if retry_s else {}
    return JSONResponse(body, status, headers={**(headers or {}), **retry})


class Guard:
    """ASGI middleware; ``hosts`` are the names under which this server may be asked, without ports; ``refuse`` makes
    the answer of a status, a message and a code; a ``read_only`` application refuses every POST itself. No browser
    takes an answer for another type than it names."""

    def __init__(
        self, app: ASGIApp, hosts: Collection[str] = LOOPBACK, *, refuse: Refuse = problem, read_only: bool = False
    ) -> None:
        self._app, self._hosts = app, frozenset(host.lower() for host in hosts)
        self._refuse, self._read_only = refuse, read_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Content-Type-Options"] = "nosniff"
            await send(message)

        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, sealed)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or _name(f"//{hosts[0]}") not in self._hosts:
            return self._refuse(
                421,
                "this server is not known under that Host: ask it as 127.0.0.1, or start it with --host ADDRESS",
                "wrong_host",
            )
        # A page's images, scripts and links come without an Origin; of those, browsers say where they come from.
        site = "" if origins else headers.get("sec-fetch-site", "none").strip().lower()
        if any(_name(origin) not in self._hosts for origin in origins) or site not in ("", "none", "same-origin"):
            return self._refuse(403, "requests from other sites are refused", "foreign_origin")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and not self._read_only and kind != "application/json":
            return self._refuse(415, "send the request as application/json", "wrong_content_type")
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
