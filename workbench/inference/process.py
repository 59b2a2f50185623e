"""The model port over a process: ``host`` is started when a model is loaded, and started anew by the first call after
it has ended. One process for each open model, so that closing it frees all of its memory and a crash harms no other.

The queue is on this side: a crash is told to the call that was at work, and those in line are answered by the next
process. A model that crashes again and again is left alone for a while: until then each call gets the last account.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from workbench.config.installed import command_for
from workbench.domain.errors import NativeCrash, ToolMissing
from workbench.domain.generation import Generation, Prompt, Sampling
from workbench.inference import frames
from workbench.inference.child import Child, OnFrame, Unbegun
from workbench.inference.queue import MAX_WAITING, MAX_WAITING_OF_ONE, FairQueue
from workbench.ports.call import Call
from workbench.ports.inference import OnText, Score

PATIENCE_S = 300.0  # without a sign of life: longer than 512 tokens of a large prompt take on a slow machine
CRASHES = 3  # while the model is loaded, in a row: it is not tried again at once
COOL_S = 10.0
CLOSE_S = 10.0  # in which whoever is at work notices that the process has ended

_open: weakref.WeakSet[ProcessModel] = weakref.WeakSet()


def _ignore(_: frames.Frame) -> None:
    """No call of which parts are told."""


class ProcessLoader:
    """``ports.inference.ModelLoader``. ``patience_s``: how long a process may be silent at work before it is ended as
    hanging; ``memory_bytes``: of address space that it may have, 0 for any."""

    def __init__(
        self,
        *,
        patience_s: float = PATIENCE_S,
        memory_bytes: int = 0,
        max_waiting: int = MAX_WAITING,
        max_waiting_of_one: int = MAX_WAITING_OF_ONE,
    ) -> None:
        self._patience_s, self._memory_bytes = patience_s, memory_bytes
        self._max_waiting, self._max_waiting_of_one = max_waiting, max_waiting_of_one
        self._circuits: dict[Path, _Circuit] = {}

    def load(
        self, gguf: Path, *, name: str = "", context: int = 0, threads: int = 0, exact: bool = False
    ) -> ProcessModel:
        path = gguf.absolute()
        settings = {"path": str(path), "context": context, "threads": threads, "exact": exact}
        circuit = self._circuits.setdefault(path, _Circuit())
        name = name or gguf.name
        model = ProcessModel(
            self._start, name, settings, circuit, FairQueue(self._max_waiting, self._max_waiting_of_one)
        )
        model.open()
        return model

    def quantise(self, source: Path, target: Path, kind: str) -> None:
        asked = {"source": str(source.absolute()), "target": str(target.absolute()), "kind": kind}
        given = f"{source.name} to {kind}"
        child = self._start()
        try:
            child.ask("quantise", asked, given=given, call=Call(), on_frame=_ignore)
        except Unbegun as error:
            raise child.account("quantise", error, given) from None
        finally:
            child.end()
            target.with_name(f"{target.name}.partial").unlink(missing_ok=True)  # where it crashed

    def _start(self) -> Child:
        if importlib.util.find_spec("llama_cpp") is None:
            raise ToolMissing("llama-cpp-python is not installed", f"install it: {command_for('llama-cpp-python')}")
        return Child(patience_s=self._patience_s, memory_bytes=self._memory_bytes)


class ProcessModel:
    """``ports.inference.LoadedModel``."""

    def __init__(
        self, start: Callable[[], Child], name: str, settings: dict[str, Any], circuit: _Circuit, queue: FairQueue
    ) -> None:
        self._start, self._settings, self._circuit, self._queue = start, settings, circuit, queue
        self._name = name
        self._child: Child | None = None
        self._about: dict[str, Any] = {}
        self._pieces: list[bytes] = []
        _open.add(self)

    def __enter__(self) -> ProcessModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def context(self) -> int:
        return int(self._about["context"])

    @property
    def engine(self) -> dict[str, Any]:
        """What besides prompt and sampling a result depends on."""
        return dict(self._about["engine"])

    @property
    def pid(self) -> int | None:
        """Of the process, for `ps`; None where none runs."""
        child = self._child
        return child.pid if child else None

    @property
    def taken(self) -> int:
        """How many calls are at work or wait."""
        return self._queue.taken

    def open(self) -> None:
        """Start the process and load the model, as the first call would."""
        with self._queue.turn(Call()):
            self._opened()

    def close(self) -> None:
        self._queue.close()
        if self._child:
            self._child.kill()
            self._queue.wait_until_idle(CLOSE_S)
            self._child.end()
        _open.discard(self)

    def tokenize(self, text: str, *, call: Call | None = None) -> Sequence[int]:
        ids: list[int] = self._ask("tokenize", {"text": text}, f"{len(text)} characters", call)
        return ids

    def logits(self, tokens: Sequence[int], *, call: Call | None = None) -> Any:
        rows: list[Any] = []

        def take(frame: frames.Frame) -> None:
            assert isinstance(frame, bytearray)
            rows.append(np.frombuffer(frame, dtype=np.float32).reshape(-1, self._about["vocabulary"]))

        self._ask("logits", {"tokens": list(tokens)}, f"{len(tokens)} tokens", call, take)
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def scores(self, tokens: Sequence[int], *, top: int = 0, call: Call | None = None) -> Sequence[Score]:
        found = self._ask("scores", {"tokens": list(tokens), "top": top}, f"{len(tokens)} tokens", call)
        return [Score(logarithm, [(token, other) for token, other in likeliest]) for logarithm, likeliest in found]

    def generate(
        self, prompt: Prompt, sampling: Sampling, on_text: OnText | None = None, *, call: Call | None = None
    ) -> Generation:
        asked = {"prompt": prompt.__dict__, "sampling": sampling.to_json(), "aloud": on_text is not None}

        def tell(frame: frames.Frame) -> None:
            if on_text is not None and isinstance(frame, dict):
                on_text(frame["text"])

        given = f"a prompt of {len(prompt.text) + len(prompt.suffix or '')} characters"
        return frames.generation(self._ask("generate", asked, given, call, tell))

    def replay(self, record: Generation, *, call: Call | None = None) -> Generation:
        given = f"a record of {len(record.prompt_tokens)} and {len(record.tokens)} tokens"
        return frames.generation(self._ask("replay", {"record": record.to_json()}, given, call))

    def text(self, tokens: Sequence[int]) -> str:
        if not self._pieces:
            self._pieces = [bytes.fromhex(piece) for piece in self._ask("pieces", {}, "the vocabulary", None)]
        return b"".join(self._pieces[token] for token in tokens).decode("utf-8", "replace")

    def _ask(
        self,
        do: str,
        asked: dict[str, Any],
        given: str,
        call: Call | None,
        on_frame: OnFrame = _ignore,
    ) -> Any:
        call = call or Call()
        answer = self._answer(do, asked, f"{given} for {self._name}", call, on_frame)
        call.check()  # given up at the last moment is given up
        return answer

    def _answer(self, do: str, asked: dict[str, Any], given: str, call: Call, on_frame: OnFrame) -> Any:
        with self._queue.turn(call):
            try:
                if self._child and not self._child.has_ended:
                    with contextlib.suppress(Unbegun):  # it ended while nobody asked: that harms nobody
                        return self._child.ask(do, asked, given=given, call=call, on_frame=on_frame)
                    self._child.end()
                    call.check()
                child = self._opened()
                try:
                    return child.ask(do, asked, given=given, call=call, on_frame=on_frame)
                except Unbegun as error:
                    raise child.account(do, error, given) from None
            except NativeCrash:
                call.check()
                self._queue.check_open()  # else it was ended by ``close``
                raise

    def _opened(self) -> Child:
        """A process in which the model is loaded."""
        if self._child and not self._child.has_ended:
            return self._child
        with self._circuit.watched():
            child = self._child = self._start()
            try:
                self._queue.check_open()
                self._about = child.ask("load", self._settings, given=self._name, call=Call(), on_frame=_ignore)
            except Unbegun as error:
                raise child.account("load", error, self._name) from None
            except BaseException:
                child.end()
                raise
        return child


class _Circuit:
    """Counts how often in a row a model crashed while it was loaded; after ``CRASHES`` it is left alone for a while."""

    def __init__(self) -> None:
        self._num_crashes = 0
        self._last: NativeCrash | None = None
        self._until_s = 0.0

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Around a try. NativeCrash, with the last account, where it is not tried."""
        left_s = self._until_s - time.monotonic()
        if self._last and self._num_crashes >= CRASHES and left_s > 0:
            hint = f"it crashed {self._num_crashes} times in a row; it is tried again in {left_s:.0f} s"
            last = self._last
            raise NativeCrash(last.crashed, last.ended, given=last.given, log=last.log, hint=hint)
        try:
            yield
        except NativeCrash as error:
            self._num_crashes, self._last, self._until_s = self._num_crashes + 1, error, time.monotonic() + COOL_S
            raise
        self._num_crashes = 0


@atexit.register
def _close_all() -> None:
    for model in list(_open):
        model.close()
