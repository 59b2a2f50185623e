"""Commands on the workspace as a whole: init, status, doctor, gc."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.context import Json, Repo, filled, store
from workbench.cli.output import emit, emit_json


def init(
    path: Annotated[str, typer.Argument(help="Where the clone goes; the hub goes beside it as PATH.git.")],
    json: Json = False,
) -> None:
    """Make a workspace: a hub PATH.git and a clone PATH with remote 'hub'.

    Example: [bold]workbench init agent[/bold]
    """
    from workbench.app.identity import who
    from workbench.app.workspace import init_workspace
    from workbench.domain.errors import UserError

    if not path:
        raise UserError("the path is empty", "for example: workbench init agent")
    made = init_workspace(Path(path), who=who())
    if json:
        emit_json({"hub": str(made.hub), "clone": str(made.clone), "main": made.main})
        return
    emit(f"hub    {made.hub}")
    emit(f"clone  {made.clone}  (remote: hub)")
    emit(f"\nnext:  cd {shlex.quote(path)} && workbench run --dry-run     what the pipeline would do")
    emit("       git push hub main                     a change to ci/pipelines/ starts it")


def status(repo: Repo = "", json: Json = False) -> None:
    """Where things stand: main, the active version, artifacts, runs.

    Example: [bold]workbench status --json[/bold]
    """
    raise AssertionError("entry.py answers status before the other commands are imported")


def doctor(
    mend: Annotated[bool, typer.Option("--mend", help="First put right what can be.")] = False,
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Check settings, hooks, bitmaps, locks, leftovers, tools and the sandbox; say how to mend what is wrong.

    Example: [bold]workbench doctor --mend[/bold]
    """
    from workbench.app.doctor import examine
    from workbench.app.doctor import mend as put_right

    with store(repo) as repository:
        for line in put_right(repository) if mend else ():
            if not json:
                emit(f"mended  {line}")
        findings = examine(repository)
    if json:
        emit_json([{"severity": f.severity, "what": f.what, "fix": f.fix} for f in findings])
    else:
        marks = {"ok": "ok      ", "warning": "warning ", "error": "ERROR   "}
        for finding in findings:
            emit(f"{marks[finding.severity]}{finding.what}" + (f"\n        mend: {finding.fix}" if finding.fix else ""))
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def gc(
    repo: Repo = "",
    cache: Annotated[
        str, typer.Option(callback=filled, help="Trim the materialise cache to this size, for example 10G.")
    ] = "",
    json: Json = False,
) -> None:
    """Repack, write the multi-pack index with bitmaps, drop expired garbage; optionally trim the cache.

    Example: [bold]workbench gc --cache 10G[/bold]
    """
    from workbench.app.housekeeping import sweep_temporary

    size_bytes = parse_size(cache) if cache else None
    with store(repo) as repository:
        done = [*repository.maintain(), *sweep_temporary(repository)]
        if size_bytes is not None:
            done.append(f"cache: {repository.cache.trim(size_bytes)} bytes freed")
    if json:
        emit_json({"done": done})
        return
    for line in done:
        emit(line)


def parse_size(text: str) -> int:
    """Bytes of ``10G``, ``500M``, ``4096``."""
    from workbench.domain.errors import UserError

    units = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    digits = text.upper().removesuffix("B").rstrip("KMGTI")
    unit = text.upper().removesuffix("B").removeprefix(digits).removesuffix("I")
    if not digits.isdigit() or unit not in units:
        raise UserError(f"not a size: {text!r}", "write a number with K, M, G or T, for example 10G")
    return int(digits) * units[unit]


def register(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(status)
    app.command()(doctor)
    app.command()(gc)
