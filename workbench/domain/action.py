"""Action keys: the digest of everything a step's output depends on, and the reason why a step runs.

A known key is reused. The parts are kept beside the key in the run cache, so that ``workbench why`` can name the part
that changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from workbench.domain.canonical import digest_of
from workbench.domain.ids import Digest
from workbench.domain.reading import anything, mapping, optional, read_or_tell, record, text, whole

FORMAT = 2  # 1: without what the step makes


@dataclass(frozen=True)
class ActionParts:
    """Everything that a step's output depends on."""

    stage: str
    name: str
    makes: str  # kind of artifact; empty: evidence only
    code: str  # digest of the stage's code, formatting and comments removed
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    inputs: Mapping[str, str] = field(default_factory=dict)  # role -> tree id
    environment: Mapping[str, str] = field(default_factory=dict)  # library, tool or hardware -> version

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "stage": self.stage,
            "name": self.name,
            "makes": self.makes,
            "code": self.code,
            "params": dict(self.params),
            "seed": self.seed,
            "inputs": dict(self.inputs),
            "environment": dict(self.environment),
        }

    @classmethod
    def from_json(cls, raw: Any) -> ActionParts:
        """What ``to_json`` gave; Corrupt for anything else."""
        return read_or_tell(lambda: PARTS.read(raw, ""), what="the parts of an action key", hint="run the stage again")

    @property
    def key(self) -> Digest:
        return digest_of(self.to_json())


PARTS = record(
    ActionParts,
    format=(1, FORMAT),
    stage=text(),
    name=text(),
    makes=optional(text(), ""),
    code=text(),
    params=mapping(anything()),
    seed=whole(),
    inputs=mapping(text()),
    environment=mapping(text()),
)


class Change(StrEnum):
    """Which part of an action key differs from the last time the stage ran."""

    KNOWN = "known"  # nothing differs: reuse
    FIRST = "first"  # the stage never ran
    CODE = "code"
    PARAMS = "params"
    SEED = "seed"
    INPUTS = "inputs"
    ENVIRONMENT = "environment"
    FORCED = "forced"
    UPSTREAM = "upstream"  # an input will be rebuilt first, so its tree id is not known yet


@dataclass(frozen=True)
class Reason:
    """Why a step runs or is reused: the kinds of change, and a sentence for each that names the values."""

    changes: tuple[Change, ...]
    details: tuple[str, ...]

    @property
    def runs(self) -> bool:
        return self.changes != (Change.KNOWN,)

    def __str__(self) -> str:
        return "; ".join(self.details)


def _differences(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    lines = []
    for key in sorted(set(old) | set(new)):
        if key not in old:
            lines.append(f"{what} {key} is new ({_brief(new[key])})")
        elif key not in new:
            lines.append(f"{what} {key} was removed (was {_brief(old[key])})")
        elif old[key] != new[key]:
            lines.append(f"{what} {key} changed: {_brief(old[key])} -> {_brief(new[key])}")
    return lines


def _brief(value: Any) -> str:
    text = str(value)
    if len(text) in (40, 64) and not text.strip("0123456789abcdef"):
        return text[:12]  # an object id or a digest
    return text if len(text) <= 40 else text[:37] + "..."


def compare(old: ActionParts | None, new: ActionParts) -> Reason:
    """Say why ``new`` must run when ``old`` is what the stage last ran with (None: it never ran)."""
    if old is None:
        return Reason((Change.FIRST,), ("never ran",))
    if old.key == new.key:
        return Reason((Change.KNOWN,), ("same code, parameters, seed, inputs and environment as before",))
    found: list[tuple[Change, list[str]]] = []
    if old.makes != new.makes:
        found.append((Change.PARAMS, [f"makes changed: {old.makes or 'nothing'} -> {new.makes or 'nothing'}"]))
    if old.code != new.code:
        found.append((Change.CODE, ["the stage's code changed"]))
    found.append((Change.PARAMS, _differences("parameter", old.params, new.params)))
    if old.seed != new.seed:
        found.append((Change.SEED, [f"seed changed: {old.seed} -> {new.seed}"]))
    found.append((Change.INPUTS, _differences("input", old.inputs, new.inputs)))
    found.append((Change.ENVIRONMENT, _differences("environment", old.environment, new.environment)))
    present = [(change, lines) for change, lines in found if lines]
    if not present:
        present = [(Change.FIRST, [f"runs under another name: {old.name} -> {new.name}"])]
    return Reason(tuple(change for change, _ in present), tuple(line for _, lines in present for line in lines))
