"""What the model's process and whoever started it say to each other: frames over a stream socket, strict and bounded.

A frame is a kind (``J`` JSON, ``F`` float32 numbers), its length in four bytes, and its bytes. Not here: what is said.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from workbench.domain.generation import Generation, Sampling

MAX_MESSAGE_BYTES = 64 << 20
MAX_NUMBERS_BYTES = 1 << 30  # 512 rows of half a million tokens
_HEAD = struct.Struct(">cI")
_LIMITS = {b"J": MAX_MESSAGE_BYTES, b"F": MAX_NUMBERS_BYTES}

Frame = dict[str, Any] | bytearray  # a message, or numbers


class Broken(Exception):
    """The other side said what is no frame."""


def message(value: dict[str, Any]) -> bytes:
    """A frame of JSON: ASCII, so that it carries any text of Python's, also what is no Unicode."""
    body = json.dumps(value, separators=(",", ":"), allow_nan=True).encode("ascii")
    if len(body) > MAX_MESSAGE_BYTES:
        raise Broken(f"a message of {len(body)} bytes")
    return _HEAD.pack(b"J", len(body)) + body


def sampling(raw: dict[str, Any]) -> Sampling:
    """What its ``to_json`` gave on the other side, which is ours: nothing is checked."""
    return Sampling(**{**raw, "stop": tuple(raw["stop"])})


def generation(raw: dict[str, Any]) -> Generation:
    """Likewise."""
    told = {name: value for name, value in raw.items() if name != "format"}
    told |= {name: tuple(raw[name]) for name in ("tokens", "prompt_tokens")}
    return Generation(**{**told, "sampling": sampling(raw["sampling"])})


def send_numbers(to: socket.socket, rows: Any) -> None:
    """``rows``: numpy float32, contiguous."""
    to.sendall(_HEAD.pack(b"F", rows.nbytes))
    to.sendall(memoryview(rows).cast("B"))


def receive(source: socket.socket) -> Frame | None:
    """The next frame; None where the other side has ended. Broken for anything else, TimeoutError by the socket."""
    head = _exactly(source, _HEAD.size)
    if head is None:
        return None
    kind, size = _HEAD.unpack(head)
    if size > _LIMITS.get(kind, -1):
        raise Broken(f"a frame of kind {kind!r} and {size} bytes")
    body = _exactly(source, size)
    if body is None or kind == b"F":
        return body
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Broken("a message that is not JSON") from error
    if not isinstance(value, dict):
        raise Broken("a message that is no object")
    return value


def _exactly(source: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        try:
            count = source.recv_into(view[at:])
        except ConnectionError:
            return None
        if not count:
            return None
        at += count
    return data
