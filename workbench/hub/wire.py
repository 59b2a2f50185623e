"""The conversation of a hook and the policy process, over a Unix socket.

A request is seven fields between NUL bytes, then end of input: format ``2``, verb (the hook's name), process id of
receive-pack, token of the entrance that the pusher came by (empty: the hub's owner), folder of the quarantine
(``pre-receive`` alone), push options (UTF-8, a line each), and the moves (old, new, ref; a line each). An entrance
(``cli/entrance.py``) says who comes by it in a request of its own, verb ``entrance``, with the name in the place of the
options; what it says holds until it closes the connection.

The answer is text for the pusher; ``\\1`` says "still working", at least once a second; ``\\2`` says "the refs have
moved": this push is accepted, however the conversation goes on; ``\\0`` with ``0`` or ``1`` after it is the verdict and
the end.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from dataclasses import dataclass

from workbench.domain.errors import Refused
from workbench.domain.printable import printable
from workbench.domain.tree_rules import shown

MAX_REQUEST_BYTES = 1 << 20
BEAT_S = 1.0
READ_S = 10.0
SAY_S = 10.0  # for a client that does not read


@dataclass(frozen=True)
class Request:
    verb: str
    receiver: int  # process id of git-receive-pack
    entrance: str
    quarantine: str
    options: tuple[str, ...]
    stdin: str


def read_request(connection: socket.socket) -> Request:
    """Refused for what is too long or no request, and for options that are no text: all that is kept of a push is."""
    connection.settimeout(READ_S)
    data = bytearray()
    while part := connection.recv(65536):
        data += part
        if len(data) > MAX_REQUEST_BYTES:
            raise Refused("the push names too many refs", "push them in parts")
    fields = bytes(data).split(b"\0", 6)
    if len(fields) != 7 or fields[0] != b"2" or not fields[2].isdigit():
        raise Refused("the hook speaks another version", "stamp the hub's hooks again: `workbench doctor --mend`")
    try:
        options = tuple(fields[5].decode().split("\n")) if fields[5] else ()
    except UnicodeDecodeError:
        what = f"a push option is not UTF-8: '{shown(fields[5])}'"
        raise Refused(what, "write it in a terminal whose encoding is UTF-8") from None
    verb, entrance, quarantine, stdin = (fields[n].decode("utf-8", "surrogateescape") for n in (1, 3, 4, 6))
    return Request(verb, int(fields[2]), entrance, quarantine, options, stdin)


def await_end(connection: socket.socket) -> None:
    """Until the other side has closed it, or has ended."""
    closed = select.poll()
    closed.register(connection, 0)
    closed.poll()


class Answer:
    """Text and a verdict for one connection. A pusher who has gone is no error."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(SAY_S)
        self._connection = connection
        self._lock = threading.Lock()
        self.gone = False

    def say(self, text: str) -> None:
        if text:
            self._send(_clean(text))

    def moved(self, text: str) -> None:
        """The refs have moved; what follows is about the run."""
        self._send(b"\2" + _clean(text))

    def admit(self) -> None:
        """The verdict, and nothing any more; the connection stays."""
        self._send(b"\0" + b"0")
        with self._lock:
            self.gone = True

    def end(self, accepted: bool, text: str = "") -> None:
        """The last words and the verdict, at once: the pusher's client wakes once for both. After that nothing is
        said any more, also not another verdict."""
        self._send(_clean(text) + b"\0" + (b"0" if accepted else b"1"))
        with self._lock:
            self.gone = True
            self._connection.close()

    def beat(self) -> None:
        """Say that the push is still worked on; to be called every ``BEAT_S``. Never waits: whoever does not read has
        something to read already."""
        if self._lock.acquire(blocking=False):
            try:
                if not self.gone:
                    os.write(self._connection.fileno(), b"\1")  # a socket with a time limit does not block
            except BlockingIOError:
                pass
            except OSError:
                self.gone = True
            finally:
                self._lock.release()

    def _send(self, data: bytes) -> None:
        with self._lock:
            if self.gone:
                return
            try:
                self._connection.sendall(data)
            except OSError:
                self.gone = True


def _clean(text: str) -> bytes:
    """For the pusher's terminal; it holds none of the signs of this conversation."""
    return printable(text).encode()
