"""The hub's processes, wired: ``python -m workbench.app.hub_host policy|worker GIT_DIR`` is how hooks start them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from workbench.app import wiring
from workbench.domain.ids import ObjectId
from workbench.hub import surroundings
from workbench.hub.context import Hub
from workbench.hub.install import check_place, install_hooks
from workbench.hub.layout import HubLayout
from workbench.hub.objects import PushedObjects
from workbench.ports.store import Repository


def install_hub(path: Path) -> Path:
    """Make a hub at ``path``, or bring one up to date: settings and hooks."""
    from workbench.store.git.settings import init_hub

    check_place(path)
    init_hub(path)
    install_hooks(path)
    return path


def open_hub(repository: Repository) -> Hub:
    def open_objects(quarantine: Sequence[Path]) -> PushedObjects:
        from workbench.store.git.quarantine import QuarantinedObjects

        return QuarantinedObjects(repository.path, quarantine)

    return Hub(
        repository=repository,
        open_objects=open_objects,
        specs=wiring.stage_specs(),
        clock=wiring.run_clock(repository),
        sandbox=wiring.sandbox,
        start_worker=lambda: start(repository.path, "worker"),
        record_contract=partial(_record_contract, repository),
        tier_folders=tier_folders,
    )


def _record_contract(repository: Repository, commit: ObjectId) -> None:
    from workbench.app.contracts import contract_of

    contract_of(repository, commit)


_TEST_PACKAGES = ("pytest", "_pytest", "py.py", "pluggy", "iniconfig", "packaging", "pygments")
_SDK_PACKAGES = ("pydantic", "pydantic_core", "annotated_types", "typing_inspection", "typing_extensions.py")


def tier_folders() -> dict[str, Path]:
    """pytest, the workbench and what its SDK imports, so that a tier can test tools. Small: the sandbox copies them
    where its user cannot reach them (all of site-packages took minutes). The interpreter there is the system's: where
    it is of another version than ours, pydantic does not load in it, and a test that needs it is skipped."""
    import sysconfig

    import workbench

    packages = Path(sysconfig.get_path("purelib"))
    wanted = (*_TEST_PACKAGES, *_SDK_PACKAGES)
    found = {f"packages/{name}": packages / name for name in wanted if (packages / name).exists()}
    return {**found, "house/workbench": Path(workbench.__file__).parent}


def start(git_dir: Path, role: str) -> None:
    """Start a process of the hub that outlives this one and holds nothing of it open."""
    layout = HubLayout(git_dir)
    layout.create()
    with open(layout.log, "ab") as log:
        command = [sys.executable, "-P", "-m", "workbench.app.hub_host", role, str(git_dir)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            cwd=git_dir,
            env=surroundings.kept(os.environ),
        )
    _children.append(process)
    _children[:] = [child for child in _children if child.poll() is None]


_children: list[subprocess.Popen[bytes]] = []


def run_policy(git_dir: Path, *, idle_s: float | None = None) -> bool:
    """Be the policy process; False when there is one already."""
    from workbench.hub.policy_server import IDLE_S, PolicyServer

    repository = wiring.open_repository(git_dir)
    return PolicyServer(open_hub(repository), IDLE_S if idle_s is None else idle_s).serve()


def run_worker(git_dir: Path, *, idle_s: float | None = None) -> int:
    """Be the worker until idle; how many pushes were handled."""
    from workbench.hub.worker import IDLE_S, work

    return work(open_hub(wiring.open_repository(git_dir)), idle_s=IDLE_S if idle_s is None else idle_s)


def main(arguments: Sequence[str]) -> None:
    role, git_dir = arguments
    surroundings.settle(Path(git_dir))
    idle_s = surroundings.idle_s(os.environ)
    {"policy": run_policy, "worker": run_worker}[role](Path(git_dir), idle_s=idle_s)


if __name__ == "__main__":
    main(sys.argv[1:])
