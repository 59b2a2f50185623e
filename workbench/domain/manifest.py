"""``manifest.json``: what an artifact is, without anything that depends on when or where it was made.

The manifest is part of the artifact's tree, so it holds only digests, parameters and counts. Tags and commit ids of
the inputs, the source commit, time and host stand in the commit's trailers and in the run's record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.domain import ids
from workbench.domain.canonical import canonical_lines
from workbench.domain.ids import Digest, ObjectId
from workbench.domain.reading import (
    INT_MIN,
    Limits,
    anything,
    checked,
    items,
    load_json,
    mapping,
    one_of,
    optional,
    record,
    text,
    whole,
)
from workbench.domain.refs import Kind, check_name

FORMAT = 1
LIMITS = Limits(size_bytes=32 << 20, values=4_000_000, depth=40)
MAX_CHUNKS = 100_000
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
        """Read a manifest; Corrupt, with the place, for an unknown format and for whatever is not as the table says."""
        return load_json(data, _MANIFEST, what="manifest", limits=LIMITS, hint="run `workbench verify` on the artifact")


_FILE = record(
    FileEntry,
    path=text(least=1),
    sha256=checked(text(), ids.digest),
    size=whole(),
    chunks=optional(whole(most=MAX_CHUNKS), 0),
)
_INPUT = record(InputEntry, kind=one_of(Kind), name=text(), tree=checked(text(), ids.object_id))
_MANIFEST = record(
    Manifest,
    format=(FORMAT,),
    kind=one_of(Kind),
    name=text(),
    files=items(_FILE),
    inputs=items(_INPUT),
    params=mapping(anything()),
    seed=whole(),
    stage=text(),
    code=text(),
    environment=mapping(text()),
    action_key=text(),
    counts=mapping(whole(INT_MIN)),
    metrics=mapping(anything()),
)
