"""A generation as data: its record is enough to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.domain.reading import (
    Limits,
    anything,
    items,
    mapping,
    number,
    optional,
    parse_json,
    read_or_tell,
    record,
    text,
    whole,
)

FORMAT = 1
LIMITS = Limits(size_bytes=64 << 20, values=4_000_000)
REPEAT_PENALTY_MIN, REPEAT_PENALTY_MAX = 0.1, 10.0  # beyond, the penalty alone would choose


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8: it has no lone surrogate, as escapes of JSON may bring."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. ``temperature`` 0 is greedy; the seed makes the rest replayable."""

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    seed: int = 0
    max_tokens: int = 64
    stop: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "stop": list(self.stop)}


@dataclass(frozen=True)
class Prompt:
    """Text to go on with; with ``suffix`` it is fill-in-the-middle."""

    text: str
    suffix: str | None = None
    layout: str = "psm"  # or "spm"; for fill-in-the-middle only


@dataclass(frozen=True)
class Generation:
    """What was generated, by what, from what: the record that repeats it."""

    text: str
    tokens: tuple[int, ...]
    finish: str  # "stop", "length" or "end"
    prompt_tokens: tuple[int, ...]
    sampling: Sampling
    model_sha256: str
    engine: Mapping[str, Any] = field(default_factory=dict)  # library version, variant, n_ctx, n_batch, n_threads

    def to_json(self) -> dict[str, Any]:
        """The record as plain values; ``from_json`` gives an equal one."""
        return {
            "format": FORMAT,
            "text": self.text,
            "tokens": list(self.tokens),
            "finish": self.finish,
            "prompt_tokens": list(self.prompt_tokens),
            "sampling": self.sampling.to_json(),
            "model_sha256": self.model_sha256,
            "engine": dict(self.engine),
        }

    @classmethod
    def from_json(cls, raw: Any) -> Generation:
        """What ``to_json`` gave; further keys beside its own are left aside. Corrupt for anything else."""
        return read_or_tell(lambda: _GENERATION.read(raw, ""), what=_WHAT, hint=_HINT)

    @classmethod
    def from_bytes(cls, data: bytes) -> Generation:
        """The record as JSON, also where it stands inside what `complete --json` or the server wrote."""

        def read() -> Generation:
            raw = parse_json(data, LIMITS)
            for key in ("workbench", "record"):
                raw = raw.get(key, raw) if isinstance(raw, dict) else raw
            return _GENERATION.read(raw, "")

        return read_or_tell(read, what=_WHAT, hint=_HINT)


_WHAT, _HINT = "the record of a generation", "give what `workbench complete --json` wrote"
_TEXT = text(most=16 << 20)
_IDS = items(whole(most=(1 << 31) - 1))
_SAMPLING = record(
    Sampling,
    temperature=optional(number(0, 1000), Sampling.temperature),
    top_k=optional(whole(), Sampling.top_k),
    top_p=optional(number(0, 1), Sampling.top_p),
    min_p=optional(number(0, 1), Sampling.min_p),
    repeat_penalty=optional(number(), Sampling.repeat_penalty),
    seed=optional(whole(-(1 << 63)), Sampling.seed),
    max_tokens=optional(whole(most=(1 << 31) - 1), Sampling.max_tokens),
    stop=optional(items(text(), most=1000), ()),
)
_GENERATION = record(
    Generation,
    format=(FORMAT,),
    more=True,
    text=_TEXT,
    tokens=_IDS,
    finish=text(),
    prompt_tokens=_IDS,
    sampling=_SAMPLING,
    model_sha256=text(),
    engine=mapping(anything()),
)
