"""llama.cpp's C interface, as far as we use it: one model, one context, tokens in, logits out. Quiet.

Everything that may change a bit of the result is set here and nowhere else. Not here: sampling, text, prompts.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import _ggml, _utils
from llama_cpp import llama_cpp as c

from workbench.config.installed import command_for
from workbench.domain.errors import Corrupt, UserError, WorldError
from workbench.inference.variants import NATIVE, chosen

CHUNK = 512  # tokens of a prompt that are computed at once: fixed, so that results never depend on history
CONTEXT_LIMIT = 8192  # tokens, where nobody asks for more: a model's own may be 128 k, and its cache gigabytes
_NO_MEMORY = ("allocate", "bad_alloc", "out of memory")
_WARNING, _ERROR = 3, 4  # ggml's numbers (llama_cpp's own table is one behind)

_messages: deque[tuple[int, str]] = deque(maxlen=20)
_listeners: list[Callable[[str], None]] = []
_open: weakref.WeakSet[NativeModel] = weakref.WeakSet()


@c.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_log(level: int, text: bytes, _user: ctypes.c_void_p) -> None:
    said = text.decode("utf-8", "replace").strip() if level in (_WARNING, _ERROR) else ""
    if said:
        _messages.append((level, said))
    for listener in _listeners:
        listener(said)


def listen(listener: Callable[[str], None]) -> None:
    """Call ``listener`` at each message of llama.cpp: with a warning's or an error's text, else with nothing."""
    _listeners.append(listener)


@cache
def start() -> None:
    """Initialise llama.cpp with the variant of this process, and keep its log off standard error."""
    c.llama_log_set(_keep_log, ctypes.c_void_p(0))
    library = chosen().library
    if library:  # before anything else: llama.cpp would look for one in the current folder
        load = _ggml.libggml.ggml_backend_load
        load.argtypes, load.restype = [ctypes.c_char_p], ctypes.c_void_p
        if not load(os.fsencode(library)):
            raise WorldError(f"llama.cpp cannot load {library}", command_for("llama-cpp-python"))
    c.llama_backend_init()


@contextlib.contextmanager
def complaints() -> Iterator[list[str]]:
    """What llama.cpp complains of meanwhile, errors before warnings: the list is filled at the end."""
    _messages.clear()
    heard: list[str] = []
    try:
        yield heard
    finally:
        heard.extend(text for _, text in sorted(_messages, key=lambda message: -message[0]) if text)


def library_version() -> str:
    return str(llama_cpp.__version__)


@dataclass(frozen=True)
class Settings:
    """What a context is opened with."""

    context: int
    threads: int
    exact: bool


@dataclass(frozen=True)
class FimIds:
    pre: int
    suf: int
    mid: int


class NativeModel:
    """A loaded model with one context. Not safe for two threads at once."""

    def __init__(self, path: Path, settings: Settings) -> None:
        start()
        self._model: Any = None
        self._ctx: Any = None

        self.settings = settings
        with complaints() as heard:
            self._model = c.llama_model_load_from_file(os.fsencode(path), _model_params())
        if not self._model:
            check_memory(heard)
            raise Corrupt(
                f"llama.cpp cannot load {path.name}: {reason(heard)}", "fetch the file again and compare its sha256"
            )
        _open.add(self)
        self._vocab = c.llama_model_get_vocab(self._model)
        trained = int(c.llama_model_n_ctx_train(self._model))
        self.n_ctx = settings.context or min(trained, CONTEXT_LIMIT)
        if self.n_ctx > trained:
            self.close()
            raise UserError(
                f"a context of {settings.context} tokens is more than the {trained} that {path.name} was trained with",
                f"ask for {trained} or fewer, or for 0: the model's own",
            )
        with complaints() as heard:
            self._ctx = c.llama_init_from_model(self._model, _context_params(self.n_ctx, settings))
        if not self._ctx:
            self.close()
            check_memory(heard)
            raise WorldError(
                f"no context of {self.n_ctx} tokens for {path.name}: {reason(heard)}",
                "free some memory, or take a model with a shorter context",
            )
        self.n_vocab = int(c.llama_vocab_n_tokens(self._vocab))

    def close(self) -> None:
        """Free everything; harmless to repeat."""
        if self._ctx:
            c.llama_free(self._ctx)
        if self._model:
            c.llama_model_free(self._model)
        self._ctx = self._model = None
        _open.discard(self)

    def tokenize(self, data: bytes) -> list[int]:
        """Without begin and end, control text not parsed."""
        room = len(data) + 16
        ids = (ctypes.c_int32 * room)()
        count = int(c.llama_tokenize(self._vocab, data, len(data), ids, room, False, False))
        if count < 0:
            ids = (ctypes.c_int32 * -count)()
            count = int(c.llama_tokenize(self._vocab, data, len(data), ids, -count, False, False))
        return list(ids[:count])

    @property
    def is_sentencepiece(self) -> bool:
        return int(c.llama_vocab_type(self._vocab)) == 1

    def token_text(self, token: int) -> bytes:
        """How the vocabulary writes a token, escapes and all."""
        text: bytes = c.llama_vocab_get_text(self._vocab, token) or b""
        return text

    def is_user_defined(self, token: int) -> bool:
        """Whether text is parted at this token before anything else, and nothing beside it is swallowed."""
        return int(c.llama_vocab_get_attr(self._vocab, token)) == int(c.LLAMA_TOKEN_ATTR_USER_DEFINED)

    def piece(self, token: int) -> bytes:
        """The bytes that a token spells; nothing for a control token."""
        buffer = ctypes.create_string_buffer(256)
        size = int(c.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False))
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = int(c.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False))
        return buffer.raw[:size]

    @property
    def begin(self) -> int | None:
        """The id that every prompt starts with, when the model wants one."""
        return int(c.llama_vocab_bos(self._vocab)) if c.llama_vocab_get_add_bos(self._vocab) else None

    @property
    def fim(self) -> FimIds | None:
        """From the file's ``fim_*_token_id`` keys (or the tokens' well-known names); None where one is missing."""
        ids = FimIds(
            int(c.llama_vocab_fim_pre(self._vocab)),
            int(c.llama_vocab_fim_suf(self._vocab)),
            int(c.llama_vocab_fim_mid(self._vocab)),
        )
        return ids if min(ids.pre, ids.suf, ids.mid) >= 0 else None

    def is_end(self, token: int) -> bool:
        return bool(c.llama_vocab_is_eog(self._vocab, token))

    def start_over(self) -> None:
        """Forget all tokens."""
        c.llama_memory_clear(c.llama_get_memory(self._ctx), True)

    def feed(self, tokens: Sequence[int]) -> Any:
        """Go on with tokens, in fixed chunks; the last one's logits, float32 [vocab] (valid until the next call)."""
        for at in range(0, len(tokens), CHUNK):
            self._decode(tokens[at : at + CHUNK], every=False)
        return np.ctypeslib.as_array(c.llama_get_logits_ith(self._ctx, -1), shape=(self.n_vocab,))

    def logits(self, tokens: Sequence[int]) -> Iterator[Any]:
        """float32 [up to CHUNK, vocab] for each chunk of the tokens, from a fresh context; valid until the next."""
        self.start_over()
        for at in range(0, len(tokens), CHUNK):
            chunk = tokens[at : at + CHUNK]
            self._decode(chunk, every=True)
            yield np.ctypeslib.as_array(c.llama_get_logits(self._ctx), shape=(len(chunk), self.n_vocab))

    def _decode(self, tokens: Sequence[int], *, every: bool) -> None:
        count = len(tokens)
        ids = (ctypes.c_int32 * count)(*tokens)
        batch = c.llama_batch_get_one(ids, count)
        flags = (ctypes.c_int8 * count)(*([1] * count))
        if every:
            batch.logits = ctypes.cast(flags, ctypes.POINTER(ctypes.c_int8))
        with complaints() as heard:
            status = int(c.llama_decode(self._ctx, batch))
        if status:
            check_memory(heard)
            raise WorldError(
                f"llama.cpp could not go on (status {status}): {reason(heard)}",
                "shorten the prompt, or free some memory",
            )


def _model_params() -> Any:
    params = c.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = chosen().name != NATIVE  # AMX is one, and not every compiler builds it right
    return params


def _context_params(n_ctx: int, settings: Settings) -> Any:
    params = c.llama_context_default_params()
    params.n_ctx = n_ctx
    params.n_batch = params.n_ubatch = min(CHUNK, n_ctx)
    params.n_seq_max = 1
    params.n_threads = params.n_threads_batch = settings.threads
    params.flash_attn_type = 0  # off: it moves logits by 5e-3
    params.type_k = params.type_v = 0 if settings.exact else 1  # F32 or F16
    params.no_perf = True
    return params


def check_memory(heard: Sequence[str]) -> None:
    """MemoryError where what llama.cpp complained of is that it got no memory."""
    short = [text for text in heard if any(word in text.lower() for word in _NO_MEMORY)]
    if short:
        raise MemoryError(short[0])


def reason(heard: Sequence[str]) -> str:
    return heard[0] if heard else "it does not say why"


@atexit.register
def _close_all() -> None:
    """Nothing of ours is left to llama.cpp when the interpreter goes."""
    for model in list(_open):
        model.close()
    for file in (_utils.outnull_file, _utils.errnull_file):  # llama_cpp opens them on import and never closes them
        file.close()
