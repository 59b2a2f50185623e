"""A model over llama.cpp in this process: completion and fill-in-the-middle, seeded, streamed and replayable.

For the model's own process (``host``) and the trial in the sandbox alone; everybody else asks ``process``.

A generation starts from an empty cache and computes its prompt in fixed chunks, so the same prompt and sampling give
the same tokens whatever was asked before. Not here: threads, queues.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from workbench.domain import tokens as layouts
from workbench.domain.errors import UserError
from workbench.domain.generation import Generation, Prompt, Sampling
from workbench.inference import sampler
from workbench.inference.gguf_header import read_header
from workbench.inference.native import CHUNK, NativeModel, Settings, library_version
from workbench.inference.text import TextStream
from workbench.inference.variants import chosen
from workbench.ports.inference import OnText, Score

Check = Callable[[], None]

MAX_THREADS = 64
_BLANK = "\u2581"


def _never() -> None:
    """Nobody gives it up."""


def _ignore(text: str) -> None:
    """Nobody listens."""


def load(gguf: Path, *, context: int = 0, threads: int = 0, exact: bool = False) -> LlamaModel:
    """Open a GGUF after checking its header's bounds. ``context`` 0: the model's own, at most 8192."""
    if context < 0 or threads < 0:
        raise UserError("context and threads cannot be negative", "use 0 for the model's own and the machine's own")
    read_header(gguf)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    settings = Settings(context=context, threads=min(threads or cores, MAX_THREADS), exact=exact)
    return LlamaModel(gguf, NativeModel(gguf, settings))


class LlamaModel:
    """For one thread. ``check`` is called before each token and each chunk of a prompt; what it raises ends
    the work."""

    def __init__(self, path: Path, native: NativeModel) -> None:
        self._path, self._native = path, native
        self._pieces: dict[int, bytes] = {}

    def __enter__(self) -> LlamaModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._native.close()

    @property
    def context(self) -> int:
        return self._native.n_ctx

    @property
    def vocabulary(self) -> int:
        return self._native.n_vocab

    @cached_property
    def sha256(self) -> str:
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def engine(self) -> dict[str, Any]:
        """What besides prompt and sampling a result depends on (threads do not change a bit; they are told anyway)."""
        settings = self._native.settings
        return {
            "library": f"llama-cpp-python {library_version()}",
            "variant": chosen().name,
            "sampler": "workbench/1",
            "n_ctx": self._native.n_ctx,
            "n_batch": CHUNK,
            "n_threads": settings.threads,
            "cache": "F32" if settings.exact else "F16",
        }

    def tokenize(self, text: str) -> list[int]:
        """As the model's own tokenizer does it, without begin and end, control text not parsed. SentencePiece writes a
        blank as U+2581; a U+2581 in the text itself is encoded as its bytes, so that it does not come back as one."""
        native = self._native
        if _BLANK not in text or not native.is_sentencepiece:
            return native.tokenize(_encoded(text))
        first, *others = text.split(_BLANK)
        ids = native.tokenize(_encoded(first))
        for part in others:
            ids += self._blank_ids or native.tokenize(_encoded(_BLANK))
            ids += native.tokenize(_encoded(part))
        return ids

    @cached_property
    def _blank_ids(self) -> list[int]:
        """The byte tokens of U+2581; empty where the vocabulary has no byte tokens."""
        names = [b"<0x%02X>" % byte for byte in _BLANK.encode()]
        texts = {self._native.token_text(token): token for token in range(self._native.n_vocab)}
        return [texts[name] for name in names] if all(name in texts for name in names) else []

    def text(self, tokens: Sequence[int]) -> str:
        return b"".join(self._piece(token) for token in tokens).decode("utf-8", "replace")

    def pieces(self) -> list[bytes]:
        """The bytes that each token of the vocabulary spells."""
        return [self._piece(token) for token in range(self._native.n_vocab)]

    def logits(self, tokens: Sequence[int], check: Check = _never) -> Iterator[Any]:
        """numpy float32 [some of the tokens, vocab], chunk by chunk, each valid until the next. UserError for more
        tokens than the context."""
        native = self._native
        self._check_tokens(tokens)
        for rows in native.logits(tokens):
            check()
            yield rows

    def scores(self, tokens: Sequence[int], top: int, check: Check = _never) -> Iterator[Score]:
        """Of each token but the first: its log probability, and those of the ``top`` likeliest."""
        at = 0
        for rows in self.logits(tokens, check):
            wanted = tokens[at + 1 : at + 1 + len(rows)]
            at += len(rows)
            for row, token in zip(rows, wanted, strict=False):  # nothing follows the last
                yield sampler.score(row, token, top)

    def generate(
        self, prompt: Prompt, sampling: Sampling, on_text: OnText = _ignore, *, check: Check = _never
    ) -> Generation:
        """Completion, or fill-in-the-middle when the prompt has a suffix."""
        return self._run(self._prompt_tokens(prompt), sampling, on_text, check)

    def replay(self, record: Generation, *, check: Check = _never) -> Generation:
        """Generate once more from a record. UserError when it is another model's or needs other settings."""
        if record.model_sha256 != self.sha256:
            raise UserError(
                f"the record is of model {record.model_sha256[:12]}, this is {self.sha256[:12]}",
                "open the release that the record names",
            )
        own = self.engine
        for key in ("sampler", "n_ctx", "n_batch", "cache"):
            if record.engine.get(key) != own[key]:
                raise UserError(
                    f"the record was made with {key} {record.engine.get(key)!r}, the model is open with {own[key]!r}",
                    "open it with the record's settings",
                )
        return self._run(tuple(record.prompt_tokens), record.sampling, _ignore, check)

    def _prompt_tokens(self, prompt: Prompt) -> tuple[int, ...]:
        native = self._native
        self._check_length(prompt.text + (prompt.suffix or ""))
        begin = [] if native.begin is None else [native.begin]
        text = self.tokenize(prompt.text)
        if prompt.suffix is None:
            return tuple(begin + text)
        ids = native.fim
        if ids is None:
            raise UserError("this model has no fill-in-the-middle tokens", "leave the suffix out, or use another model")
        layout = {"psm": layouts.psm, "spm": layouts.spm}.get(prompt.layout)
        if layout is None:
            raise UserError(f"unknown layout {prompt.layout!r}", "use psm or spm")
        suffix = self.tokenize(prompt.suffix)
        return tuple(begin + layout(text, suffix, pre=ids.pre, suf=ids.suf, mid=ids.mid))

    def _check_length(self, text: str) -> None:
        """Before tokenising, which takes llama.cpp a time that grows with the square of the number of short lines, and
        which nothing can end: what can never fit."""
        if len(text) <= self.context:
            return
        parted = sum(text.count(character) for character in self._own_tokens)
        least = parted + -(-(len(_encoded(text)) - parted) // self._longest_token)
        if least > self.context:
            raise UserError(
                f"the prompt has {least} tokens or more, the context holds {self.context}",
                "shorten the prompt, or use a model with a longer context",
            )

    @cached_property
    def _longest_token(self) -> int:
        """Bytes: no token of the vocabulary spells more. (It writes none shorter than what the token spells.)"""
        return max(len(self._native.token_text(token)) for token in range(self._native.n_vocab)) or 1

    @cached_property
    def _own_tokens(self) -> Sequence[str]:
        """ASCII characters that are always a token by themselves: line ends and tabs, in our tokenizers."""
        native = self._native
        texts = [native.token_text(token) for token in range(native.n_vocab) if native.is_user_defined(token)]
        single = [text.decode() for text in texts if len(text) == 1]
        return [character for character in single if sum(character.encode() in text for text in texts) == 1]

    def _check_tokens(self, tokens: Sequence[int]) -> None:
        if not tokens:
            raise UserError("there is nothing to go on with", "give a prompt of at least one token")
        if len(tokens) > self.context:
            raise UserError(
                f"the prompt has {len(tokens)} tokens, the context holds {self.context}",
                "shorten the prompt, or use a model with a longer context",
            )
        if not all(0 <= token < self._native.n_vocab for token in tokens):
            raise UserError("a token id is outside the vocabulary", f"ids are 0 to {self._native.n_vocab - 1}")

    def _run(self, prompt: tuple[int, ...], sampling: Sampling, on_text: OnText, check: Check) -> Generation:
        native = self._native
        sampler.check(sampling)
        self._check_tokens(prompt)
        native.start_over()
        stream = TextStream(sampling.stop)
        tokens: list[int] = []
        finish = "length"
        fed: Sequence[int] = prompt
        room = min(sampling.max_tokens, self.context - len(prompt))
        while len(tokens) < room:
            logits = self._feed(fed, check)
            token = sampler.choose(logits, sampling, len(tokens), (*prompt, *tokens))
            if self._ends(token):
                finish = "end"
                break
            tokens.append(token)
            _tell(on_text, stream.feed(self._piece(token)))
            if stream.stopped:
                finish = "stop"
                break
            fed = (token,)
        _tell(on_text, stream.end())
        if stream.stopped:
            finish = "stop"
        return Generation(stream.text, tuple(tokens), finish, prompt, sampling, self.sha256, self.engine)

    def _feed(self, tokens: Sequence[int], check: Check) -> Any:
        """The logits after ``tokens``; asked before each chunk, as a long prompt may take minutes."""
        logits = None
        for at in range(0, len(tokens), CHUNK):
            check()
            logits = self._native.feed(tokens[at : at + CHUNK])
        return logits

    def _ends(self, token: int) -> bool:
        """End of generation, or a fill-in-the-middle token, which can only begin another document."""
        ids = self._native.fim
        return self._native.is_end(token) or (ids is not None and token in (ids.pre, ids.suf, ids.mid))

    def _piece(self, token: int) -> bytes:
        if token not in self._pieces:
            self._pieces[token] = self._native.piece(token)
        return self._pieces[token]


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UserError("the text is not valid Unicode (a lone surrogate)", "send UTF-8") from error


def _tell(on_text: OnText, text: str) -> None:
    if text:
        on_text(text)
