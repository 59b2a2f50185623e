"""Fill-in-the-middle over characters, as a pure function of a text and a key.

A document is cut into windows that fit the model's context (at line ends where there are any), and each window into
prefix, middle and suffix at two uniformly drawn characters (Bavarian et al. 2022, arXiv 2207.14255, at the level of
the context). The random numbers of a document depend on (seed, document, epoch) alone: no stream is shared, so neither
order nor the number of workers matters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workbench.domain.errors import UserError
from workbench.domain.tokens import BEGIN, END, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX
from workbench.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class FimPolicy:
    """``rate`` of the documents are rearranged, ``spm_rate`` of those windows as SPM; ``window`` in characters."""

    rate: float = 0.5
    spm_rate: float = 0.5
    window: int = 1024


@dataclass(frozen=True)
class Span:
    """A window, cut in three. ``prefix + middle + suffix`` is the window."""

    prefix: str
    middle: str
    suffix: str
    layout: str  # psm or spm


class Draws:
    """Random numbers of one document in one epoch."""

    def __init__(self, seed: int, document: str, epoch: int) -> None:
        key = hashlib.sha256(f"fim\n{seed}\n{epoch}\n{document}".encode()).digest()
        self._bits = np.random.Philox(key=int.from_bytes(key[:16], "big"))

    def below(self, bound: int) -> int:
        """A whole number from 0 to ``bound`` - 1."""
        return int(self._bits.random_raw()) * bound >> 64

    def happens(self, rate: float) -> bool:
        return int(self._bits.random_raw()) < rate * 2.0**64


def windows(text: str, size: int) -> Iterator[str]:
    """The text in pieces of at most ``size`` characters, cut after a line's end where a piece holds one."""
    start = 0
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield text[start:end]
        start = end


def split(window: str, draws: Draws, spm_rate: float) -> Span:
    first, second = sorted((draws.below(len(window) + 1), draws.below(len(window) + 1)))
    layout = "spm" if draws.happens(spm_rate) else "psm"
    return Span(window[:first], window[first:second], window[second:], layout)


def encode_document(tokenizer: Tokenizer, text: str) -> list[int]:
    """``<s> text </s>``."""
    return [tokenizer.ids[BEGIN], *tokenizer.encode(text), tokenizer.ids[END]]


def encode_span(tokenizer: Tokenizer, span: Span) -> list[int]:
    """``<s> … </s>``, as a prompt for the middle and its answer."""
    prompt = tokenizer.fim_prompt(span.prefix, span.suffix, span.layout)
    return [*prompt, *tokenizer.encode(span.middle), tokenizer.ids[END]]


def encode_spans(
    tokenizer: Tokenizer, text: str, policy: FimPolicy, draws: Draws, longest: int
) -> list[list[int]] | None:
    """The ids of a document's spans, or None when it stays as it is. A window that takes more than ``longest`` tokens
    is halved and drawn again; one character is left as it is."""
    if not draws.happens(policy.rate):
        return None
    found: list[list[int]] = []
    waiting = [*windows(text, policy.window)][::-1]
    while waiting:
        window = waiting.pop()
        ids = encode_span(tokenizer, split(window, draws, policy.spm_rate))
        if len(ids) <= longest or len(window) == 1:
            found.append(ids)
        else:
            waiting += [*windows(window, -(-len(window) // 2))][::-1]
    return found


def decode_document(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text of a document, or of its spans one after the other: each is put back in order."""
    return b"".join(_part_bytes(tokenizer, part) for part in _parts(tokenizer, ids)).decode()


def _parts(tokenizer: Tokenizer, ids: list[int]) -> Iterator[list[int]]:
    begin, end = tokenizer.ids[BEGIN], tokenizer.ids[END]
    rest = ids
    while rest:
        if rest[0] != begin or end not in rest:
            raise UserError("these ids are not whole documents", "give ids from <s> to </s>")
        stop = rest.index(end)
        yield rest[1:stop]
        rest = rest[stop + 1 :]


def _part_bytes(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    pre, suf, mid = (tokenizer.ids[name] for name in (FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE))
    if not ids or ids[0] != pre:
        return tokenizer.decode_bytes(ids)
    suffix_at, middle_at = ids.index(suf), ids.index(mid)
    if suffix_at == 1:  # spm: <pre><suf>suffix<mid>prefix middle
        return tokenizer.decode_bytes(ids[middle_at + 1 :]) + tokenizer.decode_bytes(ids[2:middle_at])
    prefix, suffix, middle = ids[1:suffix_at], ids[suffix_at + 1 : middle_at], ids[middle_at + 1 :]
    return tokenizer.decode_bytes([*prefix, *middle, *suffix])
