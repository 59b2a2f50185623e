"""A quantised model that answers. Adapter: ``workbench.inference`` (llama.cpp)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from workbench.domain.generation import Generation, Prompt, Sampling

OnText = Callable[[str], None]  # called with each new piece of valid UTF-8 text
Check = Callable[[], None]  # called often while there is work, also where there is no text yet; what it raises ends it


class LoadedModel(Protocol):
    def tokenize(self, text: str) -> Sequence[int]:
        """Token ids as the model file's own tokenizer gives them, without begin and end, control text not parsed."""
        ...

    def logits(self, tokens: Sequence[int]) -> Any:
        """numpy float32 [len(tokens), vocab], computed in one batch."""
        ...

    def generate(
        self, prompt: Prompt, sampling: Sampling, on_text: OnText | None = None, *, check: Check | None = None
    ) -> Generation:
        """Completion, or fill-in-the-middle when the prompt has a suffix. The same prompt and sampling give the same
        tokens on the same class of machine."""
        ...

    def replay(self, record: Generation) -> Generation:
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

    def close(self) -> None: ...


class ModelLoader(Protocol):
    def load(self, gguf: Path, *, context: int = 0, threads: int = 0, exact: bool = False) -> LoadedModel:
        """Open a GGUF after checking its header's bounds. ``exact``: F32 cache and no flash attention, for parity
        checks. ``context`` 0: the model's own; ``threads`` 0: the machine's cores."""
        ...

    def quantise(self, source: Path, target: Path, kind: str) -> None:
        """Write ``target`` as ``kind`` (Q8_0, Q4_K_M, …); the bytes do not depend on the number of threads. StageFailed
        where a tensor would silently fall back to another type."""
        ...
