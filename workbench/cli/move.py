"""Commands that carry artifacts in and out: checkout, import, bundle, unbundle, verify."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.context import Json, Repo, filled, identity, readable, store
from workbench.cli.output import emit, emit_json, table
from workbench.cli.pipeline import watching


def checkout(
    name: Annotated[str, typer.Argument(help="An artifact: KIND/NAME/vX.Y.Z, or KIND/NAME for the newest.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Write an artifact's manifest and payload into a new folder, verified.

    Example: [bold]workbench checkout release/rust ./model[/bold]
    """
    from workbench.versions.describe import find_artifact

    with store(repo) as repository:
        artifact = find_artifact(repository, name)
        repository.artifacts.checkout(artifact, folder)
    if json:
        emit_json({"artifact": artifact.tag.short, "folder": str(folder), "files": len(artifact.manifest.files)})
        return
    emit(f"{artifact.tag.short} -> {folder} ({len(artifact.manifest.files)} files)")


def import_(
    file: Annotated[Path, typer.Argument(help="A .gguf model or a .jsonl dataset that someone else made.")],
    name: Annotated[str, typer.Option("--name", help="The artifact's name.")],
    license: Annotated[str, typer.Option("--license", help="Its licence, as an SPDX expression.")],
    kind: Annotated[str, typer.Option("--kind", help="release or dataset (default: by the file's ending).")] = "",
    origin: Annotated[
        str, typer.Option("--origin", callback=readable, help="Where it comes from, for the record.")
    ] = "",
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Make an artifact of a model or dataset from elsewhere, with licence and provenance, tried in a sandbox.

    Example: [bold]workbench import coder.gguf --name coder --license Apache-2.0[/bold]
    """
    from workbench.app.importing.file import import_file

    with store(repo) as repository:
        artifact = import_file(
            repository, file, kind=kind, name=name, license=license, origin=origin, who=identity(repo)
        )
    if json:
        emit_json({"artifact": artifact.tag.short, "commit": artifact.commit, "tree": artifact.tree})
        return
    emit(f"{artifact.tag.short}  {artifact.tree[:12]}")
    if artifact.tag.kind.value == "release":
        emit(f"next:  workbench complete {artifact.tag.short} --prompt '…'     workbench pin {artifact.tag.short}")


def bundle(
    file: Annotated[Path, typer.Argument(help="The bundle to write.")],
    names: Annotated[list[str], typer.Argument(help="Artifacts and versions to carry.")],
    with_inputs: Annotated[bool, typer.Option("--with-inputs", help="Everything they were made from as well.")] = False,
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Write artifacts and versions into one file that any machine can unbundle, with no network.

    Example: [bold]workbench bundle rust.bundle release/rust v1.0.0[/bold]
    """
    from workbench.app.carrying import bundle_names

    with store(repo) as repository:
        refs = bundle_names(repository, names, file, with_inputs=with_inputs)
    if json:
        emit_json({"file": str(file), "refs": refs, "size": file.stat().st_size})
        return
    for ref in refs:
        emit(ref)
    emit(f"{file}  {file.stat().st_size} bytes")


def unbundle(
    file: Annotated[Path, typer.Argument(help="A bundle that `workbench bundle` wrote.")],
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Take a bundle's artifacts and versions in, checked; what exists with another value is refused.

    Example: [bold]git init -q --bare agent.git && workbench unbundle rust.bundle --repo agent.git[/bold]
    """
    from workbench.app.carrying import unbundle_file

    with store(repo) as repository:
        refs = unbundle_file(repository, file, who=identity(repo))
    if json:
        emit_json({"refs": refs})
        return
    for ref in refs:
        emit(ref)
    emit(f"{len(refs)} refs taken in" if refs else "nothing new: all of it is here already")
    where = f" --repo {shlex.quote(repo)}" if repo else ""
    for line in _next_steps(refs):
        emit(line + where)


def _next_steps(refs: Sequence[str]) -> Iterator[str]:
    """What can be done with what came in: a release answers, a version serves its tools."""
    from workbench.domain.refs import AgentVersion, ArtifactTag, Kind, parse

    for ref in map(parse, refs):
        if isinstance(ref, ArtifactTag) and ref.kind is Kind.RELEASE:
            yield f"next:  workbench complete {ref.short} --prompt 'fn main() {{'"
        elif isinstance(ref, AgentVersion):
            yield f"next:  workbench mcp runner --version {ref.version}"


def verify(
    name: Annotated[
        str, typer.Argument(callback=filled, help="An artifact, version, branch or ref (default: all of them).")
    ] = "",
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build it and its inputs again from the crawl's bytes.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes for the rebuild (default: one more than the machine's).")
    ] = 0,
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Hash every object that a ref reaches, and an artifact's files against its manifest; exit 1 names the damage.

    With --rebuild make everything again in an empty store and compare tree ids.

    Example: [bold]workbench verify --rebuild release/rust[/bold]
    """
    from workbench.app.verifying import rebuild_artifact, verify_all, verify_ref

    with store(repo) as repository:
        if rebuild:
            with watching(json) as watcher:
                rows = rebuild_artifact(repository, name, workers=workers, who=identity(repo), watcher=watcher)
            good = all(row.equal for row in rows)
            if json:
                emit_json(
                    [
                        {"artifact": r.tag, "expected": r.expected, "got": r.got, "equal": r.equal, "how": r.how}
                        | {"note": r.note}
                        for r in rows
                    ]
                )
            else:
                table(
                    ("artifact", "expected", "got", "how", "", ""),
                    [
                        (r.tag, r.expected[:12], r.got[:12], r.how, "equal" if r.equal else "DIFFERENT", r.note)
                        for r in rows
                    ],
                )
        else:
            found = verify_ref(repository, name) if name else verify_all(repository)
            good = all(f.severity != "error" for f in found)
            if json:
                emit_json([{"severity": f.severity, "what": f.what, "fix": f.fix} for f in found])
            else:
                for finding in found:
                    mark = "ok     " if finding.severity == "ok" else finding.severity.upper() + " "
                    emit(mark + finding.what + (f"\n       mend: {finding.fix}" if finding.fix else ""))
    if not good:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    app.command()(checkout)
    app.command("import")(import_)
    app.command()(bundle)
    app.command()(unbundle)
    app.command()(verify)
