"""One document of a dataset, as a typed value, and its schema."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.domain.errors import Corrupt
from workbench.domain.reading import read_or_tell, record, text, whole

FIELDS = ("id", "text", "path", "package", "license", "bytes")

SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A document of a dataset",
    "type": "object",
    "additionalProperties": False,
    "required": sorted(FIELDS),
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "sha256 of the text in UTF-8"},
        "text": {"type": "string"},
        "path": {"type": "string", "description": "<package>/<path in the package>"},
        "package": {"type": "string", "description": "a row of packages.jsonl"},
        "license": {"type": "string", "description": "SPDX expression"},
        "bytes": {"type": "integer", "minimum": 0, "description": "length of the text in UTF-8"},
    },
}


@dataclass(frozen=True)
class Document:
    id: str  # sha256 of the text in UTF-8
    text: str
    path: str
    package: str
    license: str
    bytes: int

    @classmethod
    def of(cls, text: str, *, path: str, package: str, license: str) -> Document:
        data = text.encode()
        return cls(hashlib.sha256(data).hexdigest(), text, path, package, license, len(data))

    @classmethod
    def from_row(cls, row: Mapping[str, Any], *, where: str = "a document") -> Document:
        """Checked against the schema, and the id against the text; Corrupt where they differ."""
        document = read_or_tell(lambda: _DOCUMENT.read(row, ""), what=where, hint="see schema.json beside it")
        data = document.text.encode()
        if len(data) != document.bytes or hashlib.sha256(data).hexdigest() != document.id:
            raise Corrupt(f"{where}: the text is not the one its id names", "run `workbench verify` on the dataset")
        return document

    def row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FIELDS}


_TEXT = text(most=64 << 20)
_DOCUMENT = record(Document, id=text(), text=_TEXT, path=_TEXT, package=_TEXT, license=_TEXT, bytes=whole())
