"""Bytes over HTTP: whole or one range, unless the client has them already; from memory, or from a file in pieces.

A range is one stretch, as browsers and downloads ask for it; a list of ranges is answered with the whole (RFC 9110
allows it), since lists are how servers were made to work for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

REVALIDATE = "no-cache"
PIECE = 256 << 10  # bytes of a file in memory
BINARY = "application/octet-stream"  # never a type that a browser runs
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def headers_of(etag: str, cache: str = REVALIDATE) -> dict[str, str]:
    return {"ETag": f'"{etag}"', "Cache-Control": cache}


def is_known(request: Request, etag: str) -> bool:
    """Whether the client says (If-None-Match) that it has it; weak and strong tags are the same here."""
    asked = ",".join(request.headers.getlist("if-none-match")).split(",")
    return any(tag.strip().removeprefix("W/") in (f'"{etag}"', "*") for tag in asked)


def from_memory(
    request: Request, data: bytes, *, etag: str, cache: str = REVALIDATE, media_type: str = BINARY
) -> Response:
    found = _Part.of(request, etag, cache, len(data))
    body = data[found.start : found.stop]
    return Response(body, found.status, found.headers, media_type if found.status in (200, 206) else None)


def content(request: Request, file: Path, *, etag: str, cache: str = REVALIDATE) -> Response:
    """A file that does not change, in pieces. It is opened before this returns, and need not stay where it is."""
    found = _Part.of(request, etag, cache, file.stat().st_size)
    if found.status not in (200, 206) or request.method == "HEAD":
        length = {"Content-Length": str(found.stop - found.start)} if found.status in (200, 206) else {}
        return Response(None, found.status, {**found.headers, **length}, BINARY if length else None)
    headers = {**found.headers, "Content-Length": str(found.stop - found.start)}
    return _FromFile(file.open("rb"), found, headers)


class _Part:
    """Which bytes are answered, with what status and headers."""

    def __init__(self, status: int, start: int, stop: int, headers: dict[str, str]) -> None:
        self.status, self.start, self.stop, self.headers = status, start, stop, headers

    @classmethod
    def of(cls, request: Request, etag: str, cache: str, size: int) -> _Part:
        headers = {**headers_of(etag, cache), "Accept-Ranges": "bytes"}
        if is_known(request, etag):
            return cls(304, 0, 0, headers)
        # RFC 9110, 14.2: "A server MUST ignore a Range header field received with a request method that is
        # unrecognized or for which range handling is not defined. For this specification, GET is the only method".
        asked = _RANGE.fullmatch(request.headers.get("range", "").strip()) if request.method == "GET" else None
        unchanged = request.headers.get("if-range", f'"{etag}"') == f'"{etag}"'
        if asked is None or not unchanged or asked.groups() == ("", ""):
            return cls(200, 0, size, headers)
        first, last = asked.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if first and last and int(last) < int(first):
            return cls(200, 0, size, headers)  # no range at all, by its grammar
        if start >= size:
            return cls(416, 0, 0, {**headers, "Content-Range": f"bytes */{size}"})
        return cls(206, start, stop, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"})


class _FromFile(StreamingResponse):
    """Closes its file however the sending ends: nobody else does when the client goes away."""

    def __init__(self, file: BinaryIO, part: _Part, headers: dict[str, str]) -> None:
        super().__init__(_pieces(file, part.start, part.stop), part.status, headers, BINARY)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def _pieces(file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    file.seek(start)
    while start < stop and (piece := file.read(min(PIECE, stop - start))):
        start += len(piece)
        yield piece
