"""Commands on the workspace as a whole: init, status, doctor, gc."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.context import Json, Repo, filled, store
from workbench.cli.locate import locate
from workbench.cli.output import emit, emit_json

if TYPE_CHECKING:
    from workbench.ports.store import Finding


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
    quick: Annotated[bool, typer.Option("--quick", help="Look only; try nothing out.")] = False,
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Check the repository, and try on this machine what stages and servers need; say how to mend what is wrong.

    Each thing is tried once in a process of its own: a ref, the sandbox, rustc, torch, llama.cpp, …, with what it cost.
    Outside a repository the machine alone is looked at.

    Example: [bold]workbench doctor --mend[/bold]
    """
    from workbench.app.doctor import examine
    from workbench.app.doctor import mend as put_right

    if not mend and not repo and not _stands_in_repository():
        findings = examine(None, quick=quick)
    else:
        with store(repo) as repository:
            for line in put_right(repository) if mend else ():
                if not json:
                    emit(f"mended  {line}")
            findings = examine(repository, quick=quick)
    if repo:  # what is printed runs where it is printed
        findings = [replace(finding, fix=_there(finding.fix, repo)) for finding in findings]
    if json:
        emit_json([{"severity": f.severity, "what": f.what, "fix": f.fix, **_cost(f)} for f in findings])
    else:
        marks = {"ok": "ok      ", "warning": "warning ", "error": "ERROR   "}
        for finding in findings:
            emit(f"{marks[finding.severity]}{finding.what}" + (f"\n        mend: {finding.fix}" if finding.fix else ""))
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def _there(fix: str, repo: str) -> str:
    return f"{fix} --repo {shlex.quote(repo)}" if fix.startswith("workbench ") else fix


def _stands_in_repository() -> bool:
    from workbench.domain.errors import NotFound

    try:
        locate()
    except NotFound:
        return False
    return True


def _cost(finding: Finding) -> dict[str, object]:
    """Of a proof: which, its milliseconds, and what a process wrote that crashed."""
    return {name: finding.data[name] for name in ("proof", "ms", "log") if name in finding.data}


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
