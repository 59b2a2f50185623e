"""The socket of a server and its life: bound before anything is said of it, ended by Ctrl-C; how many are served.

Not here: when a connection has been too slow (``arrival``).
"""

from __future__ import annotations

import socket
import sys
from typing import Any, TextIO

import uvicorn

from workbench.domain.errors import UserError
from workbench.rest.arrival import ArrivalProtocol

MOST_CONNECTIONS = 256  # at once; a request beyond is answered 503


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; ``port`` 0 takes a free one. UserError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError, UnicodeError) as error:
        listener.close()
        why = error.strerror if isinstance(error, OSError) else "a port is a number from 0 to 65535"
        raise UserError(
            f"cannot listen on {host} port {port}: {why}", "choose another with --port, or --port 0 for any"
        ) from None
    return listener


def address(listener: socket.socket, host: str) -> str:
    """The URL by which clients reach it."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def serve_on(listener: socket.socket, app: Any, announcement: str, *, out: TextIO, **options: Any) -> None:
    """Say that there is a server, and serve an ASGI application until interrupted: that is how it ends well."""
    try:
        print(announcement, file=out, flush=True)
        bounds: dict[str, Any] = {"http": ArrivalProtocol, "ws": "none", "limit_concurrency": MOST_CONNECTIONS}
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, **bounds, **options)
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)
    finally:
        listener.close()
