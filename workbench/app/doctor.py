"""What ``workbench doctor`` looks at: the store's own checks, hooks, the sandbox, and the programs stages use; and what
it mends of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from workbench.app import identity, wiring
from workbench.domain.errors import WorkbenchError
from workbench.hub import irregular
from workbench.hub.layout import HubLayout
from workbench.ports.store import Finding, Repository

if TYPE_CHECKING:
    from workbench.store.git.repository import GitRepository

LOW_BYTES = 1 << 30
_TOOLS = {
    "rustc": ("compile checks (filter, evaluate) are refused", "apt-get install rustc"),
    "cargo": ("crates cannot be crawled", "apt-get install cargo"),
}
_LIBRARIES = {
    "torch": ("models cannot be trained", "pip install 'git-workbench[train]'"),
    "sentencepiece": ("tokenizers cannot be trained", "pip install 'git-workbench[train]'"),
    "llama_cpp": ("models cannot be served", "pip install 'git-workbench[inference]'"),
    "mcp": ("MCP servers cannot be started", "pip install 'git-workbench[serve]'"),
    "fastapi": ("HTTP servers cannot be started", "pip install 'git-workbench[serve]'"),
    "tree_sitter_rust": ("sources cannot be filtered", "pip install 'git-workbench[crawl]'"),
}


def examine(repository: Repository) -> Sequence[Finding]:
    """Every finding, the store's first."""
    findings = list(repository.check())
    findings.extend((*_hooks(repository), *_place(repository), *_queue(repository), *irregular.find(repository)))
    missing = wiring.sandbox().probe()
    findings.append(
        Finding("warning", "the sandbox is not available: untrusted code is refused", missing)
        if missing
        else Finding("ok", "the sandbox works")
    )
    for tool, (consequence, fix) in _TOOLS.items():
        if shutil.which(tool):
            findings.append(Finding("ok", f"{tool} is installed"))
        else:
            findings.append(Finding("warning", f"{tool} is not installed: {consequence}", fix))
    findings.extend(_libraries())
    return findings


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
    from workbench.hub.worker import pending_pushes, worker_is_alive

    if not HubLayout(repository.path).worker_lock.exists():  # a clone, or nothing was pushed yet
        return
    hub = open_hub(repository)
    with suppress(WorkbenchError):  # of a store that cannot be read, the checks say more
        num = len(pending_pushes(hub))
        if num and not worker_is_alive(hub):
            what = f"{num} push{'es wait' if num > 1 else ' waits'}, and no worker runs: {hub.layout.log} may say why"
            yield Finding("warning", what, "workbench worker --idle 5")


def _libraries() -> Sequence[Finding]:
    from importlib.util import find_spec

    absent = [
        Finding("warning", f"{name} is not installed: {consequence}", fix)
        for name, (consequence, fix) in _LIBRARIES.items()
        if find_spec(name) is None
    ]
    return absent or [Finding("ok", "every optional library is installed")]
