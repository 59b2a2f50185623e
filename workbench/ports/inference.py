"""A quantised model that answers. Adapter: ``workbench.inference`` (llama.cpp, in a process of its own).

One call is computed at a time; the others wait in a queue that is fair by client (``Call.client``) and bounded. Every
call may be given up by ``Call.cancel`` from any thread, in the queue and at work: it then raises Cancelled. A crash, an
out-of-memory or a hang of the library is a NativeCrash of the call that was at work; the next call finds the model
opened anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from workbench.domain.errors import WorldError
from workbench.domain.generation import Generation, Prompt, Sampling
from workbench.ports.call import Call

OnText = Callable[[str], None]  # called with each new piece of valid UTF-8 text, in the thread that asks


class Busy(WorldError):
    """Too many calls wait already."""

    retry_s = 1

    def __init__(self, taken: int) -> None:
        super().__init__(f"{taken} requests are answered or wait already", "try again later")


@dataclass(frozen=True)
class Score:
    """How likely a token was after those before it: natural logarithms, of the model's own distribution."""

    log_probability: float
    likeliest: Sequence[tuple[int, float]]  # token ids that were, from the likeliest on


class LoadedModel(Protocol):
    """Safe to share between threads. ``call`` says who asks; without one nobody can give the call up."""

    def tokenize(self, text: str, *, call: Call | None = None) -> Sequence[int]:
        """Token ids as the model file's own tokenizer gives them, without begin and end, control text not parsed."""
        ...

    def logits(self, tokens: Sequence[int], *, call: Call | None = None) -> Any:
        """numpy float32 [len(tokens), vocab]."""
        ...

    def scores(self, tokens: Sequence[int], *, top: int = 0, call: Call | None = None) -> Sequence[Score]:
        """Of each token but the first."""
        ...

    def generate(
        self, prompt: Prompt, sampling: Sampling, on_text: OnText | None = None, *, call: Call | None = None
    ) -> Generation:
        """Completion, or fill-in-the-middle when the prompt has a suffix. The same prompt and sampling give the same
        tokens on the same class of machine. The context's end ends it, whatever ``max_tokens`` says. What ``on_text``
        raises ends the call and the process of the model with it."""
        ...

    def replay(self, record: Generation, *, call: Call | None = None) -> Generation:
        """Generate once more from a record's own prompt tokens and sampling. Equal to the record on the same class of
        machine; UserError when the record is another model's or needs other settings."""
        ...

    def text(self, tokens: Sequence[int]) -> str:
        """What the tokens spell; control tokens are empty."""
        ...

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        ...

    def close(self) -> None:
        """End the model's process; harmless to repeat. Calls that wait or are at work end with UserError."""
        ...


class ModelLoader(Protocol):
    def load(
        self, gguf: Path, *, name: str = "", context: int = 0, threads: int = 0, exact: bool = False
    ) -> LoadedModel:
        """Open a GGUF after checking its header's bounds. ``name``: how the account of a crash calls it. ``context`` 0:
        the model's own; ``threads`` 0: the machine's cores. ``exact``: F32 cache and no flash attention, for parity
        checks."""
        ...

    def quantise(self, source: Path, target: Path, kind: str) -> None:
        """Write ``target`` as ``kind`` (Q8_0, Q4_K_M, …); the bytes do not depend on the number of threads. StageFailed
        where a tensor would silently fall back to another type."""
        ...
