"""The record of what the ``agents/`` of a commit offer: its contract, or why it has none. Format 1.

A record was computed once, in the sandbox, from code that nobody vouches for. So its contract may lie about that code,
and about nothing else: what is read here is held to the shape that comparing it relies on. It is kept by the tree of
``agents/``, and names the libraries that made it. Not here: computing it (``runner.contract_job``), comparing it
(``runner.contract``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.domain import ids, reading
from workbench.domain.canonical import canonical_json
from workbench.domain.errors import Corrupt, UserError
from workbench.domain.ids import ObjectId
from workbench.domain.reading import BadInput, Shape

FORMAT = 1
MAX_TOOLS = 1000
MAX_WHY = 500  # characters
NAME = r"[A-Za-z0-9_.-]{1,128}"  # of a tool, as MCP's SEP-986 has it, without slashes
READY = b"ready\n"  # what the process that computes a contract says before its answer
ANSWER = reading.Limits(size_bytes=1_000_000, values=99_000, depth=60)  # of the job; a record has room around it
LIMITS = reading.Limits(size_bytes=1 << 20, values=100_000, depth=64)
_BOUNDS = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems",
    "minProperties", "maxProperties",
)  # fmt: skip

Contract = Mapping[str, Any]  # {"format": 1, "tools": {name: {"input": schema, "output": schema}}}


@dataclass(frozen=True)
class ContractRecord:
    """``contract`` is None where there is none; ``why`` then says why, in a sentence without its full stop."""

    tree: ObjectId  # of agents/
    made_by: Mapping[str, str]  # library -> version
    contract: Contract | None = None
    why: str = ""

    def __post_init__(self) -> None:
        if (self.contract is None) != bool(self.why):
            raise UserError("a record has a contract, or says why there is none", "it is one of the two")

    def to_bytes(self) -> bytes:
        made_by = dict(self.made_by)
        value = {"format": FORMAT, "tree": self.tree, "made_by": made_by, "contract": self.contract, "why": self.why}
        return canonical_json(value) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> ContractRecord:
        return reading.load_json(
            data, _RECORD, what="the record of a contract", limits=LIMITS, error=Corrupt,
            hint="have it computed anew: workbench contract REV --again",
        )  # fmt: skip


def path_of(tree: ObjectId) -> str:
    """Where in the tree of the records the record of an ``agents/`` lies."""
    return f"{tree[:2]}/{tree}"


def read_answer(data: bytes) -> tuple[Contract | None, str]:
    """What the job that computes a contract said: a contract, or why there is none. BadInput for anything else."""
    return _ANSWER.read(reading.parse_json(data, ANSWER), "")


def _schema(value: Any, where: str) -> dict[str, Any]:
    """A JSON schema whose keywords have the types that comparing relies on; other keywords may hold anything."""
    if not isinstance(value, dict):
        raise BadInput(f"{reading.printed(value)} is not a schema", where)
    for key, item in value.items():
        if (shape := _KEYWORDS.get(key)) is not None:
            shape.read(item, f"{where}.{key}")
    return value


def _schema_or_flag(value: Any, where: str) -> Any:
    return value if isinstance(value, bool) else _schema(value, where)


def _types(value: Any, where: str) -> Any:
    return _NAMES.read(value, where) if isinstance(value, list) else reading.text(most=64).read(value, where)


_SCHEMA = Shape(_schema)
_SCHEMAS = reading.items(_SCHEMA)
_FIELDS = reading.mapping(_SCHEMA, key=reading.text(most=1024))
_NAMES = reading.items(reading.text(most=1024))
_KEYWORDS: dict[str, Shape[Any]] = {
    "$ref": reading.text(most=1024),
    "$defs": _FIELDS,
    "properties": _FIELDS,
    "required": _NAMES,
    "enum": reading.items(reading.anything()),
    "anyOf": _SCHEMAS,
    "oneOf": _SCHEMAS,
    "prefixItems": _SCHEMAS,
    "items": Shape(_schema_or_flag),
    "additionalProperties": Shape(_schema_or_flag),
    "type": Shape(_types),
    **dict.fromkeys(_BOUNDS, reading.number()),
}
_TOOL = reading.record(lambda input, output: {"input": input, "output": output}, input=_SCHEMA, output=_SCHEMA)
_NAME = reading.text(pattern=NAME, says="a tool's name: letters, digits, '_', '.' and '-', at most 128")
_CONTRACT = reading.record(
    lambda tools: {"format": FORMAT, "tools": tools},
    format=(FORMAT,),
    tools=reading.mapping(_TOOL, most=MAX_TOOLS, key=_NAME),
)
_WHY = reading.text(most=MAX_WHY)
_ANSWER = reading.record(
    lambda contract, why: (contract, why),
    format=(FORMAT,),
    contract=reading.nullable(_CONTRACT),
    why=reading.text(most=1 << 16),
)
_RECORD = reading.record(
    ContractRecord,
    format=(FORMAT,),
    tree=reading.checked(reading.text(), ids.object_id),
    made_by=reading.mapping(reading.text(most=128), most=16),
    contract=reading.nullable(_CONTRACT),
    why=_WHY,
)
