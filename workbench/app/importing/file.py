"""A GGUF becomes a ``release`` and JSON lines a ``dataset``, both in the layout that our own have (``formats.md``), so
that they can be pinned, served and trained on. What the file says of itself is not believed where it can be counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.app.importing import dataset, release
from workbench.app.importing.source import Source
from workbench.app.importing.trial import Trial, in_sandbox
from workbench.domain.errors import Refused, UserError
from workbench.domain.manifest import Manifest
from workbench.domain.refs import Kind
from workbench.domain.version import Bump
from workbench.ports.store import Artifact, Repository
from workbench.system.temporary import temporary_folder

_ENDINGS = {".gguf": Kind.RELEASE, ".jsonl": Kind.DATASET}


def import_file(
    repo: Repository,
    path: Path,
    *,
    kind: str = "",
    name: str,
    license: str,
    origin: str = "",
    who: str,
    trial: Trial = in_sandbox,
) -> Artifact:
    """Publish a file from elsewhere. ``kind`` is release or dataset (empty: by the file's ending); ``license`` an SPDX
    expression; ``origin`` free text that says where it comes from; ``trial`` opens a model before it is taken. Refused,
    with the reason, for what is hostile; ToolMissing where models of strangers cannot be tried."""
    source = Source.of(path, name=name, license=license, origin=origin)
    wanted = _kind(source.path, kind)
    with _workshop(repo.path) as folder:
        counts = release.build(source, folder, trial) if wanted is Kind.RELEASE else dataset.build(source, folder)
        params = {
            "file": _readable(source.path.name), "license": source.license, "origin": origin,
            "sha256": source.sha256, "size": source.size,
        }  # fmt: skip
        staged = repo.artifacts.stage(folder, Manifest(wanted, name, params=params, stage="import", counts=counts))
        if wanted is Kind.RELEASE and source.sha256 not in {file.sha256 for file in staged.manifest.files}:
            raise Refused(f"{source.path.name} changed while it was imported", "import it when nobody writes to it")
        why = f"import {_readable(source.path.name)} ({source.license})"
        return repo.artifacts.publish(staged, bump=Bump.MINOR, who=who, why=why)


def _readable(name: str) -> str:
    """A file's name may be any bytes."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _kind(path: Path, kind: str) -> Kind:
    found = _ENDINGS.get(path.suffix.lower())
    wanted = kind or (found.value if found else "")
    if wanted not in (Kind.RELEASE, Kind.DATASET):
        raise UserError(
            f"cannot import {path.name} as {wanted or 'anything'}", "import a .gguf model or a .jsonl dataset"
        )
    return Kind(wanted)


@contextmanager
def _workshop(git_dir: Path) -> Iterator[Path]:
    """A private folder, on the repository's file system where that may be written to."""
    base = git_dir / "workbench" if os.access(git_dir, os.W_OK) else None
    if base is not None:
        base.mkdir(exist_ok=True)
    with temporary_folder("import", within=base) as folder:
        yield folder
