"""Commands that carry artifacts in and out: checkout, import, bundle, unbundle, verify."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.context import Json, Repo, filled, identity, readable, store
from workbench.cli.output import emit, emit_json, table, when
from workbench.cli.pipeline import watching

Trust = Annotated[bool, typer.Option("--trust", help="Give it its names at once.")]


def checkout(
    name: Annotated[str, typer.Argument(help="An artifact: KIND/NAME/vX.Y.Z, or KIND/NAME for the newest.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Write an artifact's manifest and payload into a new folder, verified.

    Example: [bold]workbench checkout release/rust ./model[/bold]
    """
    from workbench.versions.describe import find_any

    with store(repo) as repository:
        artifact = find_any(repository, name)
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
    trust: Trust = False,
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Make an artifact of a model or dataset from elsewhere, with licence and provenance, tried in a sandbox.

    It has no number, and nothing uses it, until you trust it: at once with --trust, or later by [bold]workbench
    trust[/bold].

    Example: [bold]workbench import coder.gguf --name coder --license Apache-2.0 --trust[/bold]
    """
    from workbench.app.importing.file import import_file, receive_file
    from workbench.app.wiring import run_clock

    with store(repo) as repository:
        who = identity(repo)
        if not trust:
            lies = receive_file(
                repository,
                file,
                clock=run_clock(repository),
                kind=kind,
                name=name,
                license=license,
                origin=origin,
                who=who,
            )
            if json:
                emit_json({"incoming": lies.id, "artifact": lies.short})
                return
            emit(lies.short)
            emit(f"next:  workbench trust {lies.id}     nothing uses it before{_where(repo)}")
            return
        artifact = import_file(repository, file, kind=kind, name=name, license=license, origin=origin, who=who)
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
    trust: Trust = False,
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Take a bundle's artifacts and versions in, checked; what exists with another value is refused.

    They lie beside yours, to be read, and nothing uses them until you trust them: at once with --trust, or later by
    [bold]workbench trust[/bold]. A repository that holds no version and no artifact trusts its first bundle.

    Example: [bold]git init -q --bare agent.git && workbench unbundle rust.bundle --repo agent.git[/bold]
    """
    from workbench.app.carrying import unbundle_file

    with store(repo) as repository:
        was_empty = not repository.refs.all("refs/tags/")
        taken = unbundle_file(repository, file, who=identity(repo), trust=trust)
    if json:
        emit_json({"refs": taken.refs, "incoming": taken.incoming, "note": taken.note})
        return
    for ref in taken.refs:
        emit(f"incoming/{taken.incoming}/{ref.removeprefix('refs/tags/')}" if taken.incoming else ref)
    if taken.note:
        emit(f"note:  {taken.note}")
    if taken.incoming:
        emit(f"{_refs(taken.refs)} came in; nothing of it is used yet")
        emit(f"next:  workbench trust {taken.incoming}{_where(repo)}")
        return
    if taken.refs and was_empty and not trust:
        emit("this repository held no version and no artifact, so it trusts what it was given")
    emit(f"{_refs(taken.refs)} taken in" if taken.refs else "nothing new: all of it is here already")
    for line in _next_steps(taken.refs):
        emit(line + _where(repo))


def _refs(found: Collection[object]) -> str:
    return "1 ref" if len(found) == 1 else f"{len(found)} refs"


def _where(repo: str) -> str:
    return f" --repo {shlex.quote(repo)}" if repo else ""


def incoming(
    discard: Annotated[str, typer.Option("--discard", help="Take this one away instead.")] = "",
    repo: Repo = "",
    json: Json = False,
) -> None:
    """What bundles and imports brought and nobody trusts yet. Each can be looked at: show, diff, verify, checkout.

    Example: [bold]workbench incoming[/bold]
    """
    from workbench.app import trusting

    with store(repo) as repository:
        if discard:
            gone = trusting.discard(repository, discard, who=identity(repo))
            emit_json({"discarded": gone.id}) if json else emit(f"discarded {gone.id}: {_refs(gone.refs)}")
            return
        found = trusting.deliveries(repository)
    if json:
        emit_json(
            [
                {"id": each.id, "time_ms": each.time_ms, "why": each.why, "note": each.note}
                | {"refs": {ref.short: id for ref, id in each.refs.items()}}
                for each in found
            ]
        )
        return
    for each in found:
        emit(f"{each.id}  {when(each.time_ms)}  {each.why}")
        for ref in each.refs:
            emit(f"  {ref.short}")
        if each.note:
            emit(f"  note: {each.note}")
    emit(f"next:  workbench trust {found[0].id}{_where(repo)}" if found else "nothing waits to be trusted")


def trust(
    id: Annotated[
        str, typer.Argument(help="Of `workbench incoming`; 6 characters of its beginning or end are enough.")
    ],
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Take in what a bundle or an import brought: it gets its names, as one ledger entry.

    Example: [bold]workbench trust 01J9ZK[/bold]
    """
    from workbench.app import trusting

    with store(repo) as repository:
        names = trusting.trust(repository, id, who=identity(repo))
    if json:
        emit_json({"refs": names})
        return
    for name in names:
        emit(name)
    for line in _next_steps([f"refs/tags/{name}" for name in names]):
        emit(line + _where(repo))


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
    app.command()(incoming)
    app.command()(trust)
    app.command()(verify)
