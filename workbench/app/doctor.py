"""What ``workbench doctor`` looks at: the store's own checks, hooks, and whether what is used works here (``proofs``);
and what it mends of it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from workbench.app import identity, irregular, wiring
from workbench.app.proofs import PROOFS, prove
from workbench.config.installed import command_for, wheel_command
from workbench.domain.errors import WorkbenchError
from workbench.hub.layout import HubLayout
from workbench.pipeline.environment import Tools
from workbench.ports.store import Finding, Repository
from workbench.system.programs import look
from workbench.versions import passed_over

if TYPE_CHECKING:
    from workbench.store.git.repository import GitRepository

LOW_BYTES = 1 << 30
_SERVERS = {"mcp": "MCP servers cannot be started", "fastapi": "HTTP servers cannot be started"}
_PROGRAMS = {"rustc": "nothing is compiled in filter and evaluate", "cargo": "crates cannot be crawled"}


def examine(repository: Repository | None, *, quick: bool = False) -> Sequence[Finding]:
    """Every finding: of the repository, where there is one, and of this machine. ``quick``: nothing is tried out, what
    is there is only looked for."""
    findings: list[Finding] = []
    if repository is not None:
        findings.extend((*repository.check(), *_hooks(repository), *_place(repository), *_queue(repository)))
        findings.extend(irregular.find(repository))
        over = passed_over.everything(repository)
        findings.extend(Finding("warning", f"{each.ref} is passed over: {each.why}", each.fix) for each in over)
    within = repository.path / "workbench" if repository is not None else None
    findings.extend(_looked_for() if quick else prove(within=within if within and os.access(within, os.W_OK) else None))
    findings.extend(_variant())
    findings.extend(_program(name) for name in _PROGRAMS if quick or name != "rustc")  # it is tried in the sandbox
    findings.extend(_absent(name, lost, name) for name, lost in _SERVERS.items() if find_spec(name) is None)
    return findings


def _program(name: str) -> Finding:
    found = look(name)
    if found.problem:
        return Finding("warning", f"{name} cannot be used: {found.problem}: {_PROGRAMS[name]}", found.fix)
    return Finding("ok", f"{found.version}: {found.path}")


def _variant() -> Iterator[Finding]:
    """What is wrong with it; which one is used, the proofs tell."""
    if find_spec("llama_cpp") is None:  # told already
        return
    try:
        name = Tools().llama_variant()
    except WorkbenchError as error:
        yield Finding("error", error.what, error.hint)
        return
    if name == "native":
        what = "llama.cpp was built for one machine: where its processor or compiler is another, it may crash"
        python, wheels = shlex.quote(sys.executable), "~/.cache/workbench/wheels"
        wheel = f'"$(ci/llama_wheel {python} {version("llama-cpp-python")} {wheels})"'
        yield Finding("warning", what, f"in a checkout of workbench: {wheel_command(wheel)}")


def _looked_for() -> Iterator[Finding]:
    missing = wiring.sandbox().probe()
    if missing:
        yield Finding("warning", "the sandbox is not available: code of strangers is refused", missing)
    modules = {module: proof for proof in PROOFS for module in proof.modules}
    yield from (_absent(name, proof.lost, proof.library) for name, proof in modules.items() if find_spec(name) is None)


def _absent(module: str, lost: str, library: str) -> Finding:
    return Finding("warning", f"{module} is not installed: {lost}", command_for(library))


def mend(repository: GitRepository) -> Iterator[str]:
    """Set what differs, install the hooks of a hub, and do the maintenance; a sentence for each thing done."""
    from workbench.app.housekeeping import sweep_temporary
    from workbench.hub.install import install_hooks
    from workbench.store.git import settings

    table = settings.settings_of(repository.path)
    for name in settings.apply(repository.path, table):
        yield f"set {name} to {table[name]}"
    if table is settings.HUB:
        install_hooks(repository.path)
        yield "installed the hooks"
        yield from irregular.mend(
            repository, clock=wiring.run_clock(repository), who=identity.who(str(repository.path))
        )
    yield from repository.maintain()
    yield from sweep_temporary(repository)


def _hooks(repository: Repository) -> Iterator[Finding]:
    from workbench.hub.install import foreign_hooks
    from workbench.store.git import settings

    if settings.settings_of(repository.path) is settings.CLONE:  # whose hooks are its owner's
        return
    for name in foreign_hooks(repository.path):
        what = f"hook {name} is not that of this installation: it may call one that is gone"
        yield Finding("warning", what, "workbench doctor --mend")


def _place(repository: Repository) -> Iterator[Finding]:
    from workbench.hub.install import wrong_place

    free = shutil.disk_usage(repository.path).free
    if not os.access(repository.path, os.W_OK):
        yield Finding("warning", "the repository can be read here, not written", "check its owner and its mount")
    if hint := wrong_place(repository.path):
        yield Finding("error", "the path of the repository is not UTF-8: runs there cannot be recorded", hint)
    if free < LOW_BYTES:
        what = f"only {free >> 20} MiB are free on the disk of the repository"
        yield Finding("warning", what, "free some space: workbench gc --cache 1G trims the cache")


def _queue(repository: Repository) -> Iterator[Finding]:
    """Each push starts a worker where there is none: pushes that wait without one wait for one that ends too soon."""
    from workbench.app.hub_host import open_hub
    from workbench.hub import beside
    from workbench.hub.queue import waiting
    from workbench.hub.worker import worker_is_alive

    if not HubLayout(repository.path).worker_lock.exists():  # a clone, or nothing was pushed yet
        return
    hub = open_hub(repository)
    with suppress(WorkbenchError):  # of a store that cannot be read, the checks say more
        for stray in beside.look(hub):
            what = f"{stray.move.ref} moved beside the ledger"
            if stray.why:
                yield Finding("warning", f"{what}: {stray.why}", beside.mending(stray.move, repository.path))
            else:
                yield Finding("warning", f"{what}: the next worker records it", "workbench worker --idle 5")
        num = len(waiting(repository))
        if num and not worker_is_alive(hub):
            what = f"{num} push{'es wait' if num > 1 else ' waits'}, and no worker runs: {hub.layout.log} may say why"
            yield Finding("warning", what, "workbench worker --idle 5")
