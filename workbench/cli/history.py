"""Commands that read: log, show, diff; and undo, which the ledger's history makes possible."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from workbench.cli.context import Json, Repo, Why, identity, main_is_checked_out, store
from workbench.cli.locate import locate
from workbench.cli.output import emit, emit_json, fields, size, table, warn, when

MAX_REFS = 5


def log(
    ledger: Annotated[bool, typer.Option("--ledger", help="The ledger: every change the workbench made.")] = False,
    limit: Annotated[int, typer.Option("-n", min=1, help="How many at most.")] = 20,
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Versions and artifacts, newest first; with --ledger every promotion, publication and undo.

    Example: [bold]workbench log --ledger -n 5[/bold]
    """
    from workbench.versions import describe, passed_over

    with store(repo) as repository:
        if ledger:
            entries = describe.ledger_entries(repository, limit)
            warn(passed_over.sentence(passed_over.ledger(repository)))
            if json:
                emit_json(entries)
                return
            rows = [
                (
                    entry["counter"],
                    when(entry["time_ms"]),
                    entry["action"],
                    _refs(entry["moves"]),
                    entry["who"].split(" <")[0],
                    entry["why"],
                )
                for entry in entries
            ]
            table(("entry", "time", "action", "refs", "who", "why"), rows)
            return
        found = describe.versions(repository)[:limit]
        artifacts = describe.readable_artifacts(repository)
        skipped = passed_over.tags(repository)
        warn(passed_over.sentence(skipped))
        newest = sorted(artifacts, key=lambda a: repository.objects.commit(a.commit).time_s, reverse=True)[:limit]
        if json:
            summaries = [describe.artifact_summary(artifact) for artifact in newest]
            emit_json({"versions": found, "artifacts": summaries, "passed_over": [each.to_json() for each in skipped]})
            return
        lines = [
            (v["version"], when(v["time_s"] * 1000), v["message"].splitlines()[0], "active" if v["active"] else "")
            for v in found
        ]
        if lines:
            table(("version", "time", "what", ""), lines)
            emit()
        table(
            ("artifact", "time", "tree", "size", "run"),
            [
                (
                    a.tag.short,
                    when(repository.objects.commit(a.commit).time_s * 1000),
                    a.tree[:12],
                    size(sum(file.size for file in a.manifest.files)),
                    a.run,
                )
                for a in newest
            ],
        )


def _refs(moves: Sequence[Mapping[str, str]]) -> str:
    """A line of a terminal: a bundle brings dozens. All of them are in --json."""
    names = [_short(move["ref"]) for move in moves]
    more = [f"and {len(names) - MAX_REFS} more"] if len(names) > MAX_REFS else []
    return ", ".join([*names[:MAX_REFS], *more])


def _short(ref: str) -> str:
    return ref.removeprefix("refs/tags/").removeprefix("refs/workbench/").removeprefix("refs/")


def show(
    name: Annotated[str, typer.Argument(help="An artifact (KIND/NAME or KIND/NAME/vX.Y.Z) or a version (vX.Y.Z).")],
    files: Annotated[bool, typer.Option("--files", help="List the payload's files with size and sha256.")] = False,
    lineage: Annotated[bool, typer.Option("--lineage", help="Everything it was made from.")] = False,
    repo: Repo = "",
    json: Json = False,
) -> None:
    """One artifact or version: what it is, what it was made from, with which parameters.

    Example: [bold]workbench show release/rust --lineage[/bold]
    """
    from workbench.versions import describe

    with store(repo) as repository:
        if "/" not in name.removeprefix("refs/tags/") or re.fullmatch("incoming/[^/]*/[^/]*", name):
            commit = repository.resolve(name)
            known = [v for v in describe.versions(repository) if v["commit"] == commit]
            info = repository.objects.commit(commit)
            what = known[0] if known else {"commit": commit, "tree": info.tree, "message": info.message.strip()}
            found = describe.contract(repository, commit)
            if json:
                emit_json(what | found)
            else:
                tools = ", ".join(found["contract"]["tools"]) if found["contract"] else f"none: {found['no_contract']}"
                fields(what | {"tools": tools})
            return
        artifact = describe.find_any(repository, name)
        summary = describe.artifact_summary(artifact)
        listing = describe.artifact_files(artifact) if files else []
        above = list(describe.lineage(repository, artifact)) if lineage else []
        if json:
            missing = [a.tag.short for a in above if a.artifact is None]
            made_from = {"lineage": [a.tag.short for a in above], "lineage_not_here": missing}
            extra = ({"file_list": listing} if files else {}) | (made_from if lineage else {})
            emit_json(summary | extra)
            return
        fields(summary | {"size": size(summary["size"])})
        if above:
            emit("\nlineage")
            for ancestor in above:
                emit(f"  {ancestor.tag.short}{'' if ancestor.artifact else '   (not in this repository)'}")
        if listing:
            emit()
            table(("sha256", "size", "path"), [(f["sha256"][:16], f["size"], f["path"]) for f in listing])


def diff(
    old: Annotated[str, typer.Argument(help="An artifact.")],
    new: Annotated[str, typer.Argument(help="Another one, usually a later version.")],
    repo: Repo = "",
    json: Json = False,
) -> None:
    """What changed between two artifacts: parameters, inputs, environment, metrics, files.

    Example: [bold]workbench diff tokenizer/rust/v1.0.0 tokenizer/rust/v2.0.0[/bold]
    """
    from workbench.versions.describe import find_any
    from workbench.versions.diff import diff as compare

    with store(repo) as repository:
        a, b = find_any(repository, old), find_any(repository, new)
    changes = compare(a.manifest, b.manifest)
    if json:
        emit_json({"old": a.tag.short, "new": b.tag.short, "changes": changes})
        return
    emit(f"{a.tag.short} -> {b.tag.short}" + ("" if changes else ": the same content"))
    for section, entries in changes.items():
        emit(f"\n{section}")
        for key, (before, after) in list(entries.items())[:50]:
            emit(f"  {key}: {_value(before)} -> {_value(after)}")
        if len(entries) > 50:
            emit(f"  … and {len(entries) - 50} more")


def _value(value: object) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def undo(
    entry: Annotated[int | None, typer.Argument(help="The ledger entry to take back (default: the last one).")] = None,
    why: Why = "",
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Take a pin or promotion back: channels and branches stand again where they stood. Tags stay.

    An entry is a number of [bold]workbench log --ledger[/bold]; a push or another undo is taken back
    only when it is named. A clone that still has what was undone brings it back with its next push of main.

    Example: [bold]workbench undo --why "worse on short prompts"[/bold]
    """
    from workbench.domain.refs import MAIN

    with store(repo) as repository:
        made = repository.ledger.undo(entry, who=identity(repo), why=why)
    moves = [{"ref": str(m.ref), "old": m.old, "new": m.new} for m in made.moves]
    if json:
        emit_json({"counter": made.counter, "moves": moves})
        return
    emit(f"entry {made.counter}: {made.why}")
    for move in made.moves:
        emit(f"  {move.ref}: {_stand(move.old)} -> {_stand(move.new)}")
    location = locate(repo)
    main, remote = next((m for m in made.moves if m.ref == MAIN), None), location.remote
    if main and remote:
        emit(f"next:  git fetch {remote} && git rebase --onto {remote}/main {main.old[:12]}     if your main has it")
    elif main and main_is_checked_out(location):
        emit("next:  git restore --staged --worktree state     main has moved back under your work tree")
    if main and location.store != location.clone and not _came_before(location.store, main.old, main.new):
        emit(f"note:  a clone that still has {main.old[:12]} brings it back with its next push of main")


def _came_before(git_dir: str, old: str, new: str) -> bool:
    """Whether main moved forward, or from or to nothing."""
    from workbench.app import person_git

    is_absent = not old.strip("0") or not new.strip("0")
    return is_absent or not person_git.run("--git-dir", git_dir, "merge-base", "--is-ancestor", old, new).returncode


def _stand(id: str) -> str:
    return id[:12] if id.strip("0") else "absent"


def register(app: typer.Typer) -> None:
    app.command()(log)
    app.command()(show)
    app.command()(diff)
    app.command()(undo)
