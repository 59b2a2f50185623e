"""Requests and answers of OpenAI's completions API, as far as a base model for code can serve them.

Unknown fields are refused, and so are known ones that we cannot honour; none is ignored in silence. Beyond the API: the
fields ``top_k min_p repeat_penalty fim_layout``, and ``workbench`` in the answer, with the record that repeats it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from workbench.domain.canonical import digest_of
from workbench.domain.generation import REPEAT_PENALTY_MAX, REPEAT_PENALTY_MIN, Generation, Prompt, Sampling
from workbench.ports.inference import LoadedModel

DONE = b"data: [DONE]\n\n"
Stop = Annotated[str, Field(min_length=1, max_length=1024)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False


class CompletionRequest(BaseModel):
    """``POST /v1/completions``. Without a seed the seed is 0: the same request has the same answer."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    model: str = ""
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    suffix: str | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = 16
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = False
    n: Literal[1] | None = 1
    best_of: Literal[1] | None = 1
    presence_penalty: Literal[0] | Annotated[float, Field(ge=0, le=0)] | None = 0
    frequency_penalty: Literal[0] | Annotated[float, Field(ge=0, le=0)] | None = 0
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: str = ""
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    repeat_penalty: Annotated[float, Field(ge=REPEAT_PENALTY_MIN, le=REPEAT_PENALTY_MAX)] = 1.0
    fim_layout: Literal["psm", "spm"] = "psm"

    def to_prompt(self) -> Prompt:
        text = self.prompt if isinstance(self.prompt, str) else self.prompt[0]
        return Prompt(text, self.suffix, self.fim_layout)

    def to_sampling(self) -> Sampling:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            temperature=1.0 if self.temperature is None else float(self.temperature),
            top_k=self.top_k,
            top_p=1.0 if self.top_p is None else float(self.top_p),
            min_p=float(self.min_p),
            repeat_penalty=float(self.repeat_penalty),
            seed=self.seed or 0,
            max_tokens=16 if self.max_tokens is None else self.max_tokens,
            stop=tuple(stop),
        )


def models(release: str) -> dict[str, Any]:
    return {"object": "list", "data": [model_entry(release)]}


def model_entry(release: str) -> dict[str, Any]:
    return {"id": release, "object": "model", "created": 0, "owned_by": "workbench"}


def completion_id(release: str, request: CompletionRequest) -> str:
    """The same for the same request to the same release, as the answer is."""
    asked = [release, request.to_prompt().__dict__, request.to_sampling().to_json()]
    return f"cmpl-{digest_of(asked)[:24]}"


@dataclass(frozen=True)
class Envelope:
    """What all parts of an answer have in common."""

    release: str
    id: str
    created_s: int

    def whole(self, made: Generation, log_probabilities: dict[str, Any] | None) -> dict[str, Any]:
        return {**self._last(made, made.text, log_probabilities), "usage": _usage(made)}

    def piece(self, text: str) -> bytes:
        """One event of a stream: new text."""
        return event({**self._common(), "choices": [_choice(text, None, None)]})

    def end(self, made: Generation, log_probabilities: dict[str, Any] | None, usage: bool) -> bytes:
        """The events that end a stream, with the record."""
        events = event(self._last(made, "", log_probabilities))
        if usage:
            events += event({**self._common(), "choices": [], "usage": _usage(made)})
        return events + DONE

    def _last(self, made: Generation, text: str, log_probabilities: dict[str, Any] | None) -> dict[str, Any]:
        finish = "length" if made.finish == "length" else "stop"
        record = {"release": self.release, "record": made.to_json()}
        return {**self._common(), "choices": [_choice(text, log_probabilities, finish)], "workbench": record}

    def _common(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created_s,
            "model": self.release,
            "system_fingerprint": self.release,
        }


def event(body: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def log_probabilities(model: LoadedModel, made: Generation, top: int) -> dict[str, Any]:
    """Of the generated tokens under the model, before sampling's cuts, computed once more in one batch."""
    tokens = list(made.tokens)
    shown: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    if not tokens:
        return shown
    start = len(made.prompt_tokens) - 1
    logits = np.asarray(model.logits([*made.prompt_tokens, *tokens])[start:-1], dtype=np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for index, token in enumerate(tokens):
        best: Sequence[int] = np.argsort(-logs[index], kind="stable")[:top].tolist()
        shown["text_offset"].append(len(model.text(tokens[:index])))
        shown["tokens"].append(model.text([token]))
        shown["token_logprobs"].append(float(logs[index, token]))
        likeliest: dict[str, float] = {}
        for other in best:  # tokens of the same text (single bytes of a character, say): the likelier one stands
            likeliest.setdefault(model.text([other]), float(logs[index, other]))
        shown["top_logprobs"].append(likeliest)
    return shown


def _choice(text: str, log_probabilities: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": log_probabilities, "finish_reason": finish}


def _usage(made: Generation) -> dict[str, int]:
    prompt, new = len(made.prompt_tokens), len(made.tokens)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
