"""A generation as data: its record is enough to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.domain.errors import Corrupt

FORMAT = 1
REPEAT_PENALTY_MIN, REPEAT_PENALTY_MAX = 0.1, 10.0  # beyond, the penalty alone would choose


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

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Sampling:
        """TypeError or ValueError for what is no sampling."""
        numbers = {name: type(value) for name, value in cls().__dict__.items() if name != "stop"}
        given = {name: numbers[name](value) if name in numbers else value for name, value in raw.items()}
        return cls(**{**given, "stop": tuple(map(str, raw.get("stop", ())))})


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
    def from_json(cls, raw: Mapping[str, Any]) -> Generation:
        """What ``to_json`` gave; further keys beside its own are left aside. Corrupt for anything else."""
        if raw.get("format") != FORMAT:
            raise Corrupt(f"the record of a generation has format {raw.get('format')!r}; {FORMAT} is known")
        try:
            return cls(
                text=str(raw["text"]),
                tokens=tuple(map(int, raw["tokens"])),
                finish=str(raw["finish"]),
                prompt_tokens=tuple(map(int, raw["prompt_tokens"])),
                sampling=Sampling.from_json(raw["sampling"]),
                model_sha256=str(raw["model_sha256"]),
                engine=dict(raw["engine"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Corrupt(f"not the record of a generation: {error!r}", "give one as it was written") from error
