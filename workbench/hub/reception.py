"""Who waits at the policy process's socket: threads that take a connection each and answer it themselves.

The kernel wakes one of them for a connection, so nothing is handed from thread to thread while a pusher waits. The
process's own thread only keeps time: whoever is answered hears at least once a second that somebody works on it.
"""

from __future__ import annotations

import errno
import math
import socket
import sys
import threading
import time
from collections.abc import Callable

from workbench.hub.wire import BEAT_S, Answer

FREE = 2  # threads that wait, at least; another one is started when it is fewer
MOST_FREE = 8  # that stay when many were needed
MOST = 1000  # conversations at once, most of them waiting for their runs
TRY_AGAIN_S = 0.1  # after a connection could not be taken: too many open files, mostly


class Reception:
    """``converse`` answers one connection; ``is_sound`` says, for each, whether this process may still answer."""

    def __init__(
        self,
        listener: socket.socket,
        converse: Callable[[socket.socket, Answer], None],
        is_sound: Callable[[], bool],
    ) -> None:
        self._listener = listener
        self._converse = converse
        self._is_sound = is_sound
        self._changed = threading.Condition()
        self._open: set[Answer] = set()
        self._num = self._num_free = 0
        self._beats_s = 0.0  # when the open answers are to say next that they are worked on
        self._wakes_s = math.inf  # when the thread that waits looks around by itself
        self.called_s = time.monotonic()  # when somebody came last
        self.has_ended = False  # a connection found that this process must not answer any more

    @property
    def is_busy(self) -> bool:
        return bool(self._open)

    def open(self) -> None:
        for _ in range(FREE):
            self._add_thread()

    def wait(self, until_s: float) -> None:
        """Until then, or until it has ended."""
        while True:
            with self._changed:
                now = time.monotonic()
                if self.has_ended or now >= until_s:
                    return
                self._wakes_s = min(until_s, self._beats_s) if self._open else until_s
                self._changed.wait(self._wakes_s - now)
            self._beat()

    def close(self) -> None:
        """Nobody can connect any more; who has is still answered. Does not wait for that: see ``finish``."""
        self._listener.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """Wait until everybody is answered."""
        while self._num:
            time.sleep(0.01)
            self._beat()

    # --- threads -----------------------------------------------------------------------------------------------------

    def _add_thread(self) -> None:
        with self._changed:
            if self._num == MOST:
                return
            self._num += 1
            self._num_free += 1
        try:
            threading.Thread(target=self._receive, name="push", daemon=True).start()
        except RuntimeError as error:  # there are as many as the system allows
            self._leave()
            if not self._num:
                raise
            print(f"policy: {error}", file=sys.stderr, flush=True)

    def _leave(self) -> None:
        with self._changed:
            self._num -= 1
            self._num_free -= 1

    def _receive(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError as error:
                if error.errno == errno.EINVAL:  # it was closed, and nobody is left
                    return self._leave()
                print(f"policy: no connection can be taken: {error}", file=sys.stderr, flush=True)
                time.sleep(TRY_AGAIN_S)
                continue
            if not self._is_sound():
                connection.close()  # without a word: the client starts one that is what it should be
                self._end()
                continue
            answer = Answer(connection)
            self._begin(answer)
            if self._num_free < FREE:
                self._add_thread()
            try:
                self._converse(connection, answer)
            except Exception as error:  # noqa: BLE001 - out of memory, most likely: this thread still counts itself
                print(f"policy: a push was left without an answer: {error!r}", file=sys.stderr, flush=True)
                connection.close()
            if not self._go_on(answer):
                return

    def _begin(self, answer: Answer) -> None:
        with self._changed:
            self.called_s = time.monotonic()
            if not self._open:
                self._beats_s = self.called_s + BEAT_S
            self._open.add(answer)
            self._num_free -= 1
            if self._wakes_s > self._beats_s:
                self._changed.notify()

    def _go_on(self, answer: Answer) -> bool:
        with self._changed:
            self._open.discard(answer)
            if self._num_free >= MOST_FREE:
                self._num -= 1
                return False
            self._num_free += 1
            return True

    def _end(self) -> None:
        with self._changed:
            self.has_ended = True
            self._changed.notify()

    def _beat(self) -> None:
        with self._changed:
            if time.monotonic() < self._beats_s:
                return
            self._beats_s = time.monotonic() + BEAT_S
            answers = list(self._open)
        for answer in answers:
            answer.beat()
