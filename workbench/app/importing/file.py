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
from workbench.domain.ids import ZERO_ID
from workbench.domain.ledger import Action, RefMove
from workbench.domain.manifest import Manifest
from workbench.domain.refs import ArtifactTag, Incoming, Kind
from workbench.domain.version import Bump, Version
from workbench.ports.store import Artifact, Repository, Staged
from workbench.ports.work import Clock
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
    with _staged(repo, source, kind, trial) as staged:
        return repo.artifacts.publish(staged, bump=Bump.MINOR, who=who, why=_why(source))


def receive_file(
    repo: Repository,
    path: Path,
    *,
    clock: Clock,
    kind: str = "",
    name: str,
    license: str,
    origin: str = "",
    who: str,
    trial: Trial = in_sandbox,
) -> Incoming:
    """The same, but it is only laid down: it has no number, and nothing uses it, until somebody trusts it."""
    source = Source.of(path, name=name, license=license, origin=origin)
    with _staged(repo, source, kind, trial) as staged:
        lies = Incoming(clock.ulid(), ArtifactTag(staged.manifest.kind, name, Version(0, 0, 0)))
        commit = repo.objects.add_commit(staged.tree, parents=(), message=_why(source), who=who, time_ms=clock.now_ms())
        evidence = {"artifact": lies.tag.short, "tree": staged.tree, "incoming": lies.id}
        moves = [RefMove(lies, ZERO_ID, commit)]
        repo.ledger.change(Action.IMPORT, moves, who=who, why=_why(source), evidence=evidence)
    return lies


@contextmanager
def _staged(repo: Repository, source: Source, kind: str, trial: Trial) -> Iterator[Staged]:
    """The objects of the file's artifact, tried and checked. No ref names them yet."""
    wanted = _kind(source.path, kind)
    with _workshop(repo.path) as folder:
        counts = release.build(source, folder, trial) if wanted is Kind.RELEASE else dataset.build(source, folder)
        params = {
            "file": _readable(source.path.name), "license": source.license, "origin": source.origin,
            "sha256": source.sha256, "size": source.size,
        }  # fmt: skip
        manifest = Manifest(wanted, source.name, params=params, stage="import", counts=counts)
        staged = repo.artifacts.stage(folder, manifest)
        if wanted is Kind.RELEASE and source.sha256 not in {file.sha256 for file in staged.manifest.files}:
            raise Refused(f"{source.path.name} changed while it was imported", "import it when nobody writes to it")
        yield staged


def _why(source: Source) -> str:
    return f"import {_readable(source.path.name)} ({source.license})"


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
