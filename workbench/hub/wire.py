"""The conversation of a hook and the policy process, over a Unix socket.

A request is seven fields between NUL bytes, then end of input: format ``1``, verb (the hook's name), process id of
receive-pack, pusher, folder of the quarantine (``pre-receive`` alone), push options (a line each), and the moves (old,
new, ref; a line each). The answer is text for the pusher;
``\\1`` says "still working", at least once a second; ``\\0`` with ``0`` or ``1`` after it is the verdict and the end.
"""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass

from workbench.domain.errors import Refused

MAX_REQUEST_BYTES = 1 << 20
BEAT_S = 1.0
READ_S = 10.0


@dataclass(frozen=True)
class Request:
    verb: str
    receiver: int  # process id of git-receive-pack
    pusher: str
    quarantine: str
    options: tuple[str, ...]
    stdin: str


def read_request(connection: socket.socket) -> Request:
    """Refused for what is too long or no request."""
    connection.settimeout(READ_S)
    data = bytearray()
    while part := connection.recv(65536):
        data += part
        if len(data) > MAX_REQUEST_BYTES:
            raise Refused("the push names too many refs", "push them in parts")
    fields = bytes(data).decode("utf-8", "surrogateescape").split("\0", 6)
    if len(fields) != 7 or fields[0] != "1" or not fields[2].isdigit():
        raise Refused("the hook speaks another version", "stamp the hub's hooks again: `workbench doctor --mend`")
    options = tuple(fields[5].split("\n")) if fields[5] else ()
    return Request(fields[1], int(fields[2]), fields[3], fields[4], options, fields[6])


class Answer:
    """Text and a verdict for one connection; beats while it is open. A pusher who has gone is no error."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.gone = False
        threading.Thread(target=self._beat, daemon=True).start()

    def say(self, text: str) -> None:
        if text:
            self._send(text.encode("utf-8", "backslashreplace").replace(b"\0", b"?").replace(b"\1", b"?"))

    def end(self, accepted: bool) -> None:
        self._ended.set()
        self._send(b"\0" + (b"0" if accepted else b"1"))
        self._connection.close()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._send(b"\1")

    def _send(self, data: bytes) -> None:
        with self._lock:
            try:
                self._connection.sendall(data)
            except OSError:
                self.gone = True
