"""Commands of a hub: runs, worker, hook."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.context import Json, Repo, store
from workbench.cli.output import emit, emit_json, fields, table, warn, when

runs = typer.Typer(no_args_is_help=True, help="Runs: list, show, follow, cancel.", rich_markup_mode="rich")
RunId = Annotated[str, typer.Argument(help="A run's id, or the beginning or end of it (6 characters or more).")]


@runs.command("list")
def list_(
    limit: Annotated[int, typer.Option("-n", min=1, help="How many at most.")] = 20,
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Runs, newest first.

    Example: [bold]workbench runs list -n 5[/bold]
    """
    import json as json_

    from workbench.hub.runs import list_runs
    from workbench.versions import passed_over

    with store(repo) as repository:
        found = list_runs(repository, limit)
        warn(passed_over.sentence(passed_over.runs(repository)))
    if json:
        emit_json([json_.loads(record.to_bytes()) for record in found])
        return
    if not found:
        emit("no runs yet: workbench run, or push a change to ci/pipelines/")
        return
    rows = [(r.id, r.state, f"{r.kind} {r.subject}", when(r.created_ms), r.source[:12], r.trigger) for r in found]
    table(("run", "state", "what", "created", "source", "trigger"), rows)


@runs.command()
def show(run: RunId, repo: Repo = "", json: Json = False) -> None:
    """One run: its steps, why each ran, what it made, how it ended.

    Example: [bold]workbench runs show 01J9ZK[/bold]
    """
    import json as json_

    from workbench.hub.runs import find_run, show_run

    with store(repo) as repository:
        record = show_run(repository, find_run(repository, run))
    if json:
        emit_json(json_.loads(record.to_bytes()))
        return
    fields(
        {
            "run": record.id,
            "state": record.state.value,
            "what": f"{record.kind} {record.subject}",
            "trigger": record.trigger,
            "source": record.source,
            "created": when(record.created_ms),
            "ended": when(record.ended_ms) if record.ended_ms else "",
            "host": record.host,
            "error": record.error,
        }
    )
    emit()
    rows = [
        (
            step.stage,
            step.state,
            f"{(step.ended_ms - step.started_ms) / 1000:.1f} s" if step.ended_ms and step.started_ms else "",
            step.artifact,
            step.error.splitlines()[0] if step.error else step.why,
        )
        for step in record.steps
    ]
    table(("stage", "state", "time", "artifact", "why"), rows)
    for step in record.steps:
        if step.error:
            emit(f"\n{step.stage}: {step.error}")


@runs.command()
def tail(
    run: RunId,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="Go on until it ends.")] = True,
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Follow a run: its events so far, and those that come.

    Example: [bold]workbench runs tail 01J9ZK[/bold]
    """
    from workbench.cli.pipeline import finish, watching
    from workbench.domain.run import FINAL
    from workbench.hub.runs import find_run, show_run, tail_run

    with store(repo) as repository:
        found = find_run(repository, run)
        with watching(json) as watcher:
            for event in tail_run(repository, found, follow=follow):
                watcher.on(event)
        record = show_run(repository, found)
    if record.state in FINAL:
        finish(record, json)


@runs.command()
def cancel(run: RunId, repo: Repo = "", json: Json = False) -> None:
    """Stop a run: its whole process tree ends; what it has published stays.

    Example: [bold]workbench runs cancel 01J9ZK[/bold]
    """
    from workbench.hub.runs import cancel_run, find_run

    with store(repo) as repository:
        record = cancel_run(repository, find_run(repository, run))
    if json:
        emit_json({"run": record.id, "state": record.state.value})
        return
    emit(f"run {record.id} " + ("is asked to stop" if record.state.value == "running" else record.state.value))


def worker(
    repo: Repo = "", idle: Annotated[float, typer.Option(min=0, help="Seconds without work before it ends.")] = 600
) -> None:
    """The hub's worker, in the foreground: takes up what was pushed. Pushes start one on demand.

    Example: [bold]workbench worker --repo agent.git[/bold]
    """
    from pathlib import Path

    from workbench.app.hub_host import run_worker
    from workbench.cli.locate import locate

    run_worker(Path(locate(repo).store), idle_s=idle)


def hook(name: Annotated[str, typer.Argument(help="pre-receive or proc-receive.")]) -> None:
    """What a hub's hooks run. Not for people: Git calls it with its own environment and standard input.

    Example: [bold]workbench hook pre-receive[/bold]
    """
    from workbench.cli.hook_client import main
    from workbench.cli.locate import is_git_dir
    from workbench.domain.errors import UserError
    from workbench.hub.install import HOOKS

    if name not in HOOKS:
        raise UserError(f"there is no hook {name!r}", f"one of {', '.join(HOOKS)}")
    if not is_git_dir("."):
        raise UserError("a hook runs in a hub, where git starts it", "push to the hub: git push hub main")
    main(name)


def receive_pack(
    name: Annotated[str, typer.Option("--as", help="Who comes by this entrance.")],
    hub: Annotated[str, typer.Argument(help="The hub; over ssh, what the client asked for.")] = "",
    only: Annotated[str, typer.Option(help="The hub, or the folder of hubs, that they may reach.")] = "",
) -> None:
    """An entrance for who is not the hub's own system user: a push is by that name, and ci/paths.toml binds it.

    For an ssh key, in ~/.ssh/authorized_keys of the hub's user: command="workbench receive-pack --as alice --only
    /srv/agent.git",restrict ssh-ed25519 …

    Example: [bold]git push --receive-pack='workbench receive-pack --as alice' hub main[/bold]
    """
    import os
    from pathlib import Path

    from workbench.cli import entrance
    from workbench.domain.roles import check_pusher

    check_pusher(name)
    limit = Path(only) if only else None
    if hub:
        entrance.serve(name, Path(hub), limit, "receive-pack", os.environ)
    entrance.over_ssh(name, limit, os.environ)


def http_backend() -> None:
    """A CGI program for an HTTP server, in the place of git http-backend: a push is by the user that the server knows.

    The server sets GIT_PROJECT_ROOT, PATH_INFO and REMOTE_USER (git-http-backend(1)), and runs it as the hub's user.

    Example: [bold]workbench http-backend[/bold]
    """
    import os

    from workbench.cli import entrance

    entrance.over_http(os.environ)


def register(app: typer.Typer) -> None:
    app.command("receive-pack")(receive_pack)
    app.command("http-backend")(http_backend)
    app.add_typer(runs, name="runs")
    app.command()(worker)
    app.command()(hook)
