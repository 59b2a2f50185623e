"""Requests and answers of OpenAI's completions API, as far as a base model for code can serve them.

Unknown fields are refused, and so are known ones that we cannot honour; none is ignored in silence. Beyond the API: the
fields ``top_k min_p repeat_penalty fim_layout``, and ``workbench`` in the answer, with the record that repeats it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench.domain.canonical import digest_of
from workbench.domain.errors import UserError
from workbench.domain.generation import REPEAT_PENALTY_MAX, REPEAT_PENALTY_MIN, Generation, Prompt, Sampling
from workbench.ports.call import Call
from workbench.ports.inference import LoadedModel, Score

MAX_PROMPTS = 32
DONE = b"data: [DONE]\n\n"
Stop = Annotated[str, Field(min_length=1, max_length=1024)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False


class CompletionRequest(BaseModel):
    """``POST /v1/completions``. Without a seed the seed is 0: the same request has the same answer."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    model: str = ""
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
    suffix: str | None = None
    max_tokens: Annotated[int, Field(ge=0)] = 16
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] = Field(default_factory=list)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool = False
    n: Literal[1] = 1
    best_of: Literal[1] = 1
    presence_penalty: Literal[0] | Annotated[float, Field(ge=0, le=0)] = 0
    frequency_penalty: Literal[0] | Annotated[float, Field(ge=0, le=0)] = 0
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: str = ""
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    repeat_penalty: Annotated[float, Field(ge=REPEAT_PENALTY_MIN, le=REPEAT_PENALTY_MAX)] = 1.0
    fim_layout: Literal["psm", "spm"] = "psm"

    @classmethod
    def read(cls, given: Any) -> CompletionRequest:
        """From plain values, in which null means not given. ValidationError for anything else."""
        if isinstance(given, dict):
            given = {name: _without_nulls(value) for name, value in given.items() if value is not None}
        return cls.model_validate(given)

    def to_prompts(self) -> list[Prompt]:
        """UserError for what cannot be asked for together."""
        if self.echo and (self.stream or self.suffix is not None):
            raise UserError("echo is for whole answers without a suffix", "leave out echo, or stream and suffix")
        texts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        return [Prompt(text, self.suffix, self.fim_layout) for text in texts]

    def to_sampling(self) -> Sampling:
        return Sampling(
            temperature=float(self.temperature),
            top_k=self.top_k,
            top_p=float(self.top_p),
            min_p=float(self.min_p),
            repeat_penalty=float(self.repeat_penalty),
            seed=self.seed,
            max_tokens=self.max_tokens,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop),
        )


def _without_nulls(value: Any) -> Any:
    return {name: each for name, each in value.items() if each is not None} if isinstance(value, dict) else value


@dataclass(frozen=True)
class Choice:
    """The answer to one prompt. ``echo``: the prompt's text, where it is to come first."""

    made: Generation
    log_probabilities: dict[str, Any] | None
    echo: str = ""


def model_entry(release: str) -> dict[str, Any]:
    return {"id": release, "object": "model", "created": 0, "owned_by": "workbench"}


def completion_id(release: str, request: CompletionRequest) -> str:
    """The same for the same request to the same release, as the answer is."""
    prompts = [prompt.__dict__ for prompt in request.to_prompts()]
    asked = [release, *prompts, request.to_sampling().to_json()]
    return f"cmpl-{digest_of(asked)[:24]}"


@dataclass(frozen=True)
class Envelope:
    """What all parts of an answer have in common."""

    release: str
    id: str
    created_s: int

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        shown = [_last(index, choice, choice.echo + choice.made.text) for index, choice in enumerate(choices)]
        return {**self._with_records(choices), "choices": shown, "usage": _usage(choices)}

    def piece(self, index: int, text: str) -> bytes:
        """One event of a stream: new text of one choice."""
        return event({**self._common(), "choices": [_choice(index, text, None, None)]})

    def end(self, choices: Sequence[Choice], usage: bool) -> bytes:
        """The events that end a stream, with the records."""
        shown = [_last(index, choice, "") for index, choice in enumerate(choices)]
        events = event({**self._with_records(choices), "choices": shown})
        if usage:
            events += event({**self._common(), "choices": [], "usage": _usage(choices)})
        return events + DONE

    def _with_records(self, choices: Sequence[Choice]) -> dict[str, Any]:
        records = [choice.made.to_json() for choice in choices]
        told = {"record": records[0]} if len(records) == 1 else {"records": records}
        return {**self._common(), "workbench": {"release": self.release, **told}}

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


def log_probabilities(model: LoadedModel, made: Generation, top: int, echo: bool, call: Call) -> dict[str, Any]:
    """Of the generated tokens under the model, before sampling's cuts, computed once more; with ``echo`` of the
    prompt's tokens as well. What begins every prompt spells nothing and is not shown."""
    tokens = [*made.prompt_tokens, *made.tokens]
    shown: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    start = len(made.prompt_tokens) if not echo else 0 if model.text(tokens[:1]) else 1
    if start == len(tokens):
        return shown
    scores = [None, *model.scores(tokens, top=top, call=call)]  # nothing comes before the first
    offset = 0
    unfinished: list[int] = []
    for token, score in zip(tokens[start:], scores[start:], strict=True):
        shown["text_offset"].append(offset + len(model.text(unfinished)))
        shown["tokens"].append(model.text([token]))
        shown["token_logprobs"].append(score.log_probability if score else None)
        shown["top_logprobs"].append(_likeliest(model, score) if score else None)
        unfinished.append(token)
        if not (text := model.text(unfinished)).endswith("\ufffd"):  # no character is left in halves
            offset, unfinished = offset + len(text), []
    return shown


def _likeliest(model: LoadedModel, score: Score) -> dict[str, float]:
    found: dict[str, float] = {}
    for token, logarithm in score.likeliest:  # of tokens with the same text (bytes of a character) the likelier stands
        found.setdefault(model.text([token]), logarithm)
    return found


def _last(index: int, choice: Choice, text: str) -> dict[str, Any]:
    finish = "length" if choice.made.finish == "length" else "stop"
    return _choice(index, text, choice.log_probabilities, finish)


def _choice(index: int, text: str, log_probabilities: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": log_probabilities, "finish_reason": finish}


def _usage(choices: Sequence[Choice]) -> dict[str, int]:
    prompt = sum(len(choice.made.prompt_tokens) for choice in choices)
    new = sum(len(choice.made.tokens) for choice in choices)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
