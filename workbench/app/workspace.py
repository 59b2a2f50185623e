"""Making a workspace: a hub whose first commit is the template, and a clone of it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from workbench.app import wiring
from workbench.app.template import template_files
from workbench.domain import refs
from workbench.domain.errors import Refused, WorldError
from workbench.domain.ids import EMPTY_TREE, ZERO_ID
from workbench.domain.ledger import Action, RefMove


@dataclass(frozen=True)
class Workspace:
    hub: Path
    clone: Path
    main: str


def init_workspace(path: Path, *, who: str) -> Workspace:
    """Create ``PATH.git`` (hub) and ``PATH`` (clone with remote ``hub``); refuses what is there already."""
    from workbench.hub.install import install_hooks
    from workbench.store.git.settings import init_hub

    clone = path.absolute()
    hub = clone.with_name(clone.name + ".git")
    if hub.exists():
        raise Refused(f"{hub} is there already", f"take another name, or clone it: git clone -o hub {hub} {path}")
    if clone.exists() and any(clone.iterdir()):
        raise Refused(f"{clone} is not empty", "give a new or empty folder; the hub is made beside it as PATH.git")
    init_hub(hub)
    install_hooks(hub)
    with wiring.open_repository(hub) as repository:
        tree = repository.objects.add_tree(EMPTY_TREE, dict(template_files()))
        commit = repository.objects.add_commit(
            tree, parents=(), message="A new workspace\n", who=who, time_ms=wiring.clock().now_ms()
        )
        move = RefMove(str(refs.MAIN), ZERO_ID, commit)
        repository.ledger.change(Action.INIT, [move], who=who, why="a new workspace")
    command = ["git", "clone", "--quiet", "--origin", "hub", "--branch", "main", str(hub), str(clone)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise WorldError(f"the hub is made, but cloning it failed: {done.stderr.strip()}", " ".join(command))
    return Workspace(hub, clone, commit)
