"""The process in which llama.cpp lives: one model, asked over a socket by the process that started it.

``python -m workbench.inference.host FD MEMORY_BYTES``, started by ``child`` alone. It does one call after the other. A
second thread listens, so that a call can be given up meanwhile, and so that this process ends with whoever started it.
What is written on standard error is kept there, for the account of a crash. Each request is one message, and names the
call by a number; what is answered carries the number::

    ← {"call": 7, "do": "generate", "prompt": …}      ← {"cancel": 7}
    → {"call": 7}                                     begun, or still at work
    → {"call": 7, "text": "…"}                        new text
    → numbers                                         some rows of logits
    → {"call": 7, "done": …}                          or "cancelled", "no_memory", or "error" with kind, what and hint

Not here: the queue, the watch over this process (``process``).
"""

from __future__ import annotations

import faulthandler
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workbench.domain.errors import WorkbenchError
from workbench.domain.generation import Prompt
from workbench.inference import frames, llama, native
from workbench.inference.quantise import quantise
from workbench.ports.call import Cancelled

ALIVE_EVERY_S = 0.5  # how often a call that has nothing to tell says that it goes on


class Host:
    """Answers requests until the other side has ended."""

    def __init__(self, other: socket.socket) -> None:
        self._other = other
        self._asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._cancelled = -1  # the number of the newest call that was given up
        self._number = 0
        self._told_s = 0.0
        self._model: llama.LlamaModel | None = None
        self._operations: dict[str, Callable[[dict[str, Any]], Any]] = {
            "load": self._load,
            "quantise": self._quantise,
            "tokenize": lambda asked: self._opened.tokenize(asked["text"]),
            "pieces": lambda _: [piece.hex() for piece in self._opened.pieces()],
            "logits": self._logits,
            "scores": self._scores,
            "generate": self._generate,
            "replay": self._replay,
        }

    def run(self) -> None:
        native.listen(self._hear)
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        while True:
            self._answer(self._asked.get())

    def _listen(self) -> None:
        """Ends the process with the other side: at once, whatever is at work."""
        while isinstance(asked := frames.receive(self._other), dict):
            if "cancel" in asked:
                self._cancelled = asked["cancel"]
            else:
                self._asked.put(asked)
        os._exit(0)

    def _answer(self, asked: dict[str, Any]) -> None:
        self._number = asked["call"]
        self._tell()
        try:
            done = {"done": self._operations[asked["do"]](asked)}
        except Cancelled:
            done = {"cancelled": True}
        except MemoryError as error:
            done = {"no_memory": str(error)}
        except WorkbenchError as error:
            done = {"error": {"kind": type(error).__name__, "what": error.what, "hint": error.hint}}
        self._tell(**done)

    def _tell(self, **said: Any) -> None:
        self._other.sendall(frames.message({"call": self._number, **said}))
        self._told_s = time.monotonic()

    def _alive(self) -> None:
        if time.monotonic() - self._told_s > ALIVE_EVERY_S:
            self._tell()

    def _check(self) -> None:
        if self._cancelled == self._number:
            raise Cancelled
        self._alive()

    def _hear(self, complaint: str) -> None:
        """llama.cpp speaks of each tensor that it loads or quantises: it is alive, and its complaints are kept."""
        if complaint:
            print(complaint, file=sys.stderr, flush=True)
        self._alive()

    @property
    def _opened(self) -> llama.LlamaModel:
        assert self._model is not None
        return self._model

    def _load(self, asked: dict[str, Any]) -> dict[str, Any]:
        path = Path(asked["path"])
        self._model = llama.load(path, context=asked["context"], threads=asked["threads"], exact=asked["exact"])
        return {"context": self._model.context, "vocabulary": self._model.vocabulary, "engine": self._model.engine}

    def _quantise(self, asked: dict[str, Any]) -> None:
        quantise(Path(asked["source"]), Path(asked["target"]), asked["kind"])

    def _logits(self, asked: dict[str, Any]) -> None:
        for rows in self._opened.logits(asked["tokens"], self._check):
            frames.send_numbers(self._other, np.ascontiguousarray(rows))

    def _scores(self, asked: dict[str, Any]) -> list[Any]:
        scores = self._opened.scores(asked["tokens"], asked["top"], self._check)
        return [[score.log_probability, score.likeliest] for score in scores]

    def _generate(self, asked: dict[str, Any]) -> dict[str, Any]:
        prompt, sampling = Prompt(**asked["prompt"]), frames.sampling(asked["sampling"])
        hear = self._told if asked["aloud"] else _ignore
        return self._opened.generate(prompt, sampling, hear, check=self._check).to_json()

    def _told(self, text: str) -> None:
        self._tell(text=text)

    def _replay(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self._opened.replay(frames.generation(asked["record"]), check=self._check).to_json()


def _ignore(text: str) -> None:
    """Nobody listens."""


def main(arguments: list[str]) -> None:
    descriptor, memory_bytes = map(int, arguments)
    faulthandler.enable(all_threads=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started this process, and ends it with him
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # as large as the model
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    Host(socket.socket(fileno=descriptor)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
