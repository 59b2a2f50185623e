"""What every command needs: where it stands, the store, who runs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.locate import Location, locate

if TYPE_CHECKING:
    from workbench.store.git.repository import GitRepository


def filled(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    """An empty word is an unset variable of a script, never a wish for the default."""
    source = context.get_parameter_source(parameter.name or "")
    if value == "" and source is not None and source.name != "DEFAULT":
        raise typer.BadParameter("it is empty: leave it out for the default")
    return value


def readable(value: str) -> str:
    """Words for the record: bytes that are no text become question marks."""
    return value.encode("utf-8", "replace").decode("utf-8")


Why = Annotated[str, typer.Option("--why", callback=readable, help="Why; it goes into the ledger.")]
Repo = Annotated[
    str,
    typer.Option("--repo", metavar="PATH", callback=filled, help="The hub or clone to work in (default: around here)."),
]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]


@contextmanager
def store(repo: str) -> Iterator[GitRepository]:
    """The store of the repository that ``--repo`` or the current folder means."""
    from workbench.app.wiring import open_repository

    location = locate(repo)
    with open_repository(_own_git_dir(location) or Path(location.store)) as repository:
        if repository.unfinished is not None:
            from workbench.cli.output import warn

            warn(str(repository.unfinished))
        yield repository


def source_commit(location: Location) -> str:
    """The commit whose pipelines and state a command means: HEAD of the clone, or main of a hub."""
    from workbench.app import person_git
    from workbench.domain.refs import MAIN

    where = ["-C", location.worktree] if location.worktree else ["--git-dir", location.store]
    name = "HEAD" if location.worktree else str(MAIN)
    found = person_git.run(*where, "rev-parse", "--verify", "--quiet", name + "^{commit}").stdout.strip()
    if not found:
        from workbench.domain.errors import NotFound

        raise NotFound("there is no commit yet", "make one and push it: git commit, then git push hub main")
    return found


def main_is_checked_out(location: Location) -> bool:
    """Whether the store is this clone itself and main is what its work tree shows: a pin then moves it from below."""
    own = _own_git_dir(location)
    return own is not None and (own / "HEAD").read_text("utf-8", "replace").strip() == "ref: refs/heads/main"


def _own_git_dir(location: Location) -> Path | None:
    """Where the store is this clone itself: the Git directory that has the HEAD of its work tree. Of a linked work tree
    that is another than the clone's."""
    if not location.worktree or location.store != location.clone:
        return None
    pointer = Path(location.worktree) / ".git"
    if not pointer.is_file():
        return Path(location.clone)
    return pointer.parent / os.fsdecode(pointer.read_bytes()).removeprefix("gitdir:").strip()


def identity(repo: str) -> str:
    from workbench.app.identity import who

    location = locate(repo)
    return who(location.clone or location.store)
