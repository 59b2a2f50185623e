"""``manifest.json``: what an artifact is, without anything that depends on when or where it was made.

The manifest is part of the artifact's tree, so it holds only digests, parameters and counts. Tags and commit ids of
the inputs, the source commit, time and host stand in the commit's trailers and in the run's record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.domain import ids
from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import Corrupt
from workbench.domain.ids import Digest, ObjectId
from workbench.domain.refs import Kind, check_name

FORMAT = 1
MANIFEST = "manifest.json"
PAYLOAD = "payload"


def chunk_name(index: int) -> str:
    """Where a chunk lies below its file, ``<00..>/<000..>``: in Git's order the names are in file order."""
    return f"{index // 1000:02d}/{index % 1000:03d}"


@dataclass(frozen=True, order=True)
class FileEntry:
    """One file of the payload. ``chunks`` is 0 for a plain blob, else the number of blobs its tree holds in order."""

    path: str  # relative to payload/, '/'-separated
    sha256: Digest
    size: int  # bytes
    chunks: int = 0


@dataclass(frozen=True, order=True)
class InputEntry:
    """An artifact that this one was made from, by tree id (its identity)."""

    kind: Kind
    name: str
    tree: ObjectId


@dataclass(frozen=True)
class Manifest:
    kind: Kind
    name: str
    files: tuple[FileEntry, ...] = ()
    inputs: tuple[InputEntry, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    stage: str = ""  # the stage that made it, or "import"
    code: str = ""  # digest of the stage's code
    environment: Mapping[str, str] = field(default_factory=dict)  # library -> version, as the stage declares them
    action_key: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name, "artifact name")

    def to_bytes(self) -> bytes:
        """Canonical, indented JSON with the files and inputs sorted."""
        return canonical_lines(
            {
                "format": FORMAT,
                "kind": self.kind.value,
                "name": self.name,
                "files": [
                    {"path": f.path, "sha256": f.sha256, "size": f.size} | ({"chunks": f.chunks} if f.chunks else {})
                    for f in sorted(self.files)
                ],
                "inputs": [{"kind": i.kind.value, "name": i.name, "tree": i.tree} for i in sorted(self.inputs)],
                "params": dict(self.params),
                "seed": self.seed,
                "stage": self.stage,
                "code": self.code,
                "environment": dict(self.environment),
                "action_key": self.action_key,
                "counts": dict(self.counts),
                "metrics": dict(self.metrics),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read a manifest; an unknown format version or a missing field is refused as corrupt."""
        try:
            raw = json.loads(data)
            if not isinstance(raw, dict):
                raise ValueError("not an object")
            if raw.get("format") != FORMAT:
                raise Corrupt(
                    f"manifest has format {raw.get('format')!r}; this workbench reads format {FORMAT}",
                    "upgrade workbench, or publish the artifact again with this version",
                )
            return cls(
                kind=Kind(raw["kind"]),
                name=raw["name"],
                files=tuple(
                    FileEntry(f["path"], ids.digest(f["sha256"]), int(f["size"]), int(f.get("chunks", 0)))
                    for f in raw["files"]
                ),
                inputs=tuple(InputEntry(Kind(i["kind"]), i["name"], ids.object_id(i["tree"])) for i in raw["inputs"]),
                params=raw["params"],
                seed=raw["seed"],
                stage=raw["stage"],
                code=raw["code"],
                environment=raw["environment"],
                action_key=raw["action_key"],
                counts=raw["counts"],
                metrics=raw["metrics"],
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Corrupt(f"manifest cannot be read: {error}", "run `workbench verify` on the artifact") from error
