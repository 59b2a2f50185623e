"""``state/active.state.json`` and ``state/staging.state.json``: what is tuned, checked and bounded. Format 1::

{"format": 1,
 "release": {"artifact": "release/rust/v1.0.0", "tree": "<40 hex>"},     null until something is pinned
 "quantisation": "Q8_0",
 "sampling": {"temperature": 0.2, "top_k": 40, "top_p": 0.95, "min_p": 0.0, "repeat_penalty": 1.0,
              "seed": 0, "max_tokens": 64, "stop": []}}
"""

from __future__ import annotations

from functools import reduce
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import UserError
from workbench.domain.generation import REPEAT_PENALTY_MAX, REPEAT_PENALTY_MIN, Sampling
from workbench.domain.ids import Digest, ObjectId, sha256
from workbench.domain.reading import BadInput, Limits, at, check_format, parse_json
from workbench.domain.refs import ArtifactTag

ACTIVE_PATH = "state/active.state.json"
MAX_BYTES = 64 << 10
LIMITS = Limits(size_bytes=MAX_BYTES)


class PinnedRelease(BaseModel):
    """A release by its tag, for people, and by its tree id, which is its identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact: str
    tree: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]

    @property
    def tag(self) -> ArtifactTag:
        return ArtifactTag.parse(self.artifact)

    @property
    def tree_id(self) -> ObjectId:
        return ObjectId(self.tree)


class SamplingState(BaseModel):
    """Bounds of what may be tuned; see ``domain.generation.Sampling`` for the meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Annotated[float, Field(ge=0, le=5)] = 0.0
    top_k: Annotated[int, Field(ge=0, le=100_000)] = 40
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    repeat_penalty: Annotated[float, Field(ge=REPEAT_PENALTY_MIN, le=REPEAT_PENALTY_MAX)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    stop: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=16)] = ()

    def sampling(self) -> Sampling:
        return Sampling(**self.model_dump())


class StateDocument(BaseModel):
    """One state, frozen; its etag is the sha256 of its canonical bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    release: PinnedRelease | None = None
    quantisation: Annotated[str, Field(pattern=r"^[A-Z0-9_]{2,16}$")] = "Q8_0"
    sampling: SamplingState = SamplingState()

    def to_bytes(self) -> bytes:
        return canonical_lines(self.model_dump(mode="json"))

    @property
    def etag(self) -> Digest:
        return sha256(self.to_bytes())


def read(data: bytes, path: str = ACTIVE_PATH) -> StateDocument:
    """Parse and check a state file; a wrong one is a UserError that names each wrong value."""
    try:
        raw = parse_json(data, LIMITS)  # bounded, and nothing that pydantic would let pass
        if isinstance(raw, dict) and "format" in raw:
            check_format(raw, (1,))
        state = StateDocument.model_validate_json(data, strict=True)
        if state.release is not None:
            ArtifactTag.parse(state.release.artifact)
        return state
    except ValidationError as error:
        wrong = "; ".join(f"{reduce(at, e['loc'], '')}: {e['msg']}" for e in error.errors()[:5])
        raise UserError(f"{path} is not a valid state: {wrong}", "mend these values and commit again") from None
    except BadInput as bad:
        raise UserError(f"{path} cannot be read: {bad}", "mend it and commit again") from None
