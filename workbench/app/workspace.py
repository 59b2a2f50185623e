"""Making a workspace: a hub whose first commit is the template, and a clone of it."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from workbench.app import person_git, wiring
from workbench.app.template import template_files
from workbench.domain import refs
from workbench.domain.errors import Refused, UserError, WorldError
from workbench.domain.ids import EMPTY_TREE, ZERO_ID, ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.system import durable
from workbench.system.temporary import temporary_folder


@dataclass(frozen=True)
class Workspace:
    hub: Path
    clone: Path
    main: str


def init_workspace(path: Path, *, who: str) -> Workspace:
    """Create ``PATH.git`` (hub) and ``PATH`` (clone with remote ``hub``); refuses what is there already. When it fails,
    nothing of it is left."""
    hub, clone = _places(path)
    new = not clone.exists()
    try:
        if not clone.parent.is_dir():
            durable.make_folder(clone.parent)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{clone} cannot be made: {error.filename} is no folder", "take another place") from None
    with temporary_folder("init", within=clone.parent) as draft:
        commit = _make_hub(draft / hub.name, who)
        try:
            durable.sync_tree(draft / hub.name)
            durable.rename(draft / hub.name, hub)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise _taken(hub, path) from None  # somebody else was faster
    done = person_git.run("clone", "--quiet", "--origin", "hub", "--branch", "main", str(hub), str(clone))
    if done.returncode != 0:
        shutil.rmtree(hub)
        if new:
            shutil.rmtree(clone, ignore_errors=True)
        raise WorldError(f"the workspace cannot be made: {' '.join(done.stderr.split())}", "mend that and run it again")
    durable.sync_tree(clone)
    return Workspace(hub, clone, commit)


def _places(path: Path) -> tuple[Path, Path]:
    """Where hub and clone go: the one is not there, the other is not there or empty."""
    clone = Path(os.path.abspath(path))
    if not clone.name or clone.name.endswith(".git"):
        raise UserError(f"{path} is no name for a clone", "give it without .git: the hub is made beside it as PATH.git")
    hub = clone.with_name(clone.name + ".git")
    if os.path.lexists(hub):
        raise _taken(hub, path)
    if os.path.lexists(clone) and not clone.is_dir():
        raise Refused(f"{clone} is there already and is no folder", "take another name")
    if clone.is_dir() and any(clone.iterdir()):
        raise Refused(f"{clone} is not empty", "give a new or empty folder; the hub is made beside it as PATH.git")
    return hub, clone


def _taken(hub: Path, path: Path) -> Refused:
    return Refused(f"{hub} is there already", f"take another name, or clone it: git clone -o hub {hub} {path}")


def _make_hub(hub: Path, who: str) -> ObjectId:
    """A hub with the first commit; that commit."""
    from workbench.hub.install import install_hooks
    from workbench.store.git.settings import init_hub

    init_hub(hub)
    install_hooks(hub)
    with wiring.open_repository(hub) as repository:
        tree = repository.objects.add_tree(EMPTY_TREE, dict(template_files()))
        commit = repository.objects.add_commit(
            tree, parents=(), message="A new workspace\n", who=who, time_ms=wiring.clock().now_ms()
        )
        move = RefMove(refs.MAIN, ZERO_ID, commit)
        begun = {"stands": dict[str, str]()}  # from here on every move is an entry
        repository.ledger.change(Action.INIT, [move], who=who, why="a new workspace", evidence=begun)
    return commit
