"""Commands that run pipelines: run, why."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.context import Json, Repo, filled, identity, source_commit, store
from workbench.cli.locate import locate
from workbench.cli.output import emit, emit_json, table
from workbench.domain.errors import UserError

if TYPE_CHECKING:
    from workbench.domain.run import RunRecord
    from workbench.pipeline.plan import Plan
    from workbench.pipeline.watch import Watcher

_EXIT_FAILED = 9


def run(
    pipeline: Annotated[
        str, typer.Argument(callback=filled, help="A name in ci/pipelines/ (default: the only one).")
    ] = "",
    only: Annotated[str, typer.Option("--only", metavar="STAGE", callback=filled, help="This stage alone.")] = "",
    start: Annotated[
        str, typer.Option("--from", metavar="STAGE", callback=filled, help="This stage and those after it.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Run what would be reused.")] = False,
    resume: Annotated[
        str, typer.Option("--resume", metavar="RUN", callback=filled, help="Take up a run that was cut off.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and why; change nothing.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes to use (default: the cores).")] = 0,
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Run the pipeline as the current commit defines it; what is known is reused, and it says why.

    Example: [bold]workbench run --from tokenizer --dry-run[/bold]
    """
    from workbench.app import pipelines
    from workbench.pipeline.plan import Mode

    if resume and (pipeline or only or start or force or dry_run):
        raise UserError("--resume takes up the work of that run, whole", "leave the other arguments out")
    with store(repo) as repository:
        if resume:
            from workbench.hub.runs import find_run

            with watching(json) as watcher:
                record = pipelines.resume(
                    repository, find_run(repository, resume), who=identity(repo), workers=workers, watcher=watcher
                )
        else:
            planner = pipelines.planner(repository, _source(repo), pipeline)
            mode = Mode(only=only, start=start, force=force)
            if dry_run:
                plan = planner.plan(mode)
                show_plan(plan, json)
                pipelines.check_rights(planner, plan)
                return
            with watching(json) as watcher:
                record = pipelines.walk(planner, mode, who=identity(repo), workers=workers, watcher=watcher)
    finish(record, json)


def _source(repo: str) -> str:
    """The commit that defines the pipeline; what is not committed does not count, and that is said."""
    from workbench.cli.status import changed
    from workbench.pipeline.definition import FOLDER

    location = locate(repo)
    commit = source_commit(location)
    if location.worktree and changed(location.worktree, "--", FOLDER):
        sys.stderr.write(f"note: changes in {FOLDER} that are not committed do not count\n")
    return commit


@contextlib.contextmanager
def watching(json: bool) -> Iterator[Watcher]:
    """A live table in a terminal, plain lines elsewhere, events as JSON lines on standard output for programs."""
    from workbench.pipeline.watch import JsonWatcher, PlainWatcher

    if json:
        yield JsonWatcher(sys.stdout)
    elif sys.stderr.isatty():
        from workbench.cli.live import LiveTable

        with LiveTable() as table_:
            yield table_
    else:
        from workbench.app.wiring import clock

        yield PlainWatcher(sys.stdout, clock().now_ms)


def finish(record: RunRecord, json: bool) -> None:
    """The last word on a run, and its exit code."""
    from workbench.domain.run import State

    if not json:
        made = [step.artifact for step in record.steps if step.state is State.SUCCEEDED and step.artifact]
        reused = [step for step in record.steps if step.state is State.REUSED]
        emit(f"run {record.id} {record.state}: {len(made)} made, {len(reused)} reused")
        for short in made:
            emit(f"  {short}")
        if record.error:
            emit(f"  {record.error}")
    if record.state is not State.SUCCEEDED:
        raise typer.Exit(_EXIT_FAILED)


def show_plan(plan: Plan, json: bool) -> None:
    if json:
        emit_json(plan.to_json())
        return
    rows = [
        (
            step.stage,
            "runs" if step.runs else "reused" if step.selected else "-",
            (step.reused.tag.short if step.reused and not step.runs else step.version) or "",
            step.why,
        )
        for step in plan.steps
    ]
    table(("stage", "", "artifact", "why"), rows)
    emit(f"\n{len(plan.runs)} of {len(plan.steps)} steps would run; nothing was changed")


def why(
    stage: Annotated[str, typer.Argument(help="A stage of the pipeline.")],
    pipeline: Annotated[
        str, typer.Option("--pipeline", callback=filled, help="A name in ci/pipelines/ (default: the only one).")
    ] = "",
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Why a stage would run or be reused: which part of its action key changed.

    Example: [bold]workbench why tokenizer[/bold]
    """
    from workbench.app import pipelines

    with store(repo) as repository:
        step = pipelines.planner(repository, _source(repo), pipeline).why(stage)
    if json:
        emit_json(step.to_json() | {"parts": step.parts.to_json() if step.parts else None})
        return
    emit(f"{stage}: {'would run' if step.reason.runs else 'would be reused'}")
    for detail in (*step.reason.details, *step.notes):
        emit(f"  {detail}")
    if step.reused is not None:
        emit(f"  known as {step.reused.tag.short}")
    if step.key:
        emit(f"  action key {step.key}")


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(why)
