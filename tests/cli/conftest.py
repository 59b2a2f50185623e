"""Commands run as a person runs them: in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """``cli(folder, *arguments)`` runs one command there."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "WORKBENCH_"))}
    who = {f"GIT_{r}_{w}": v for r in ("AUTHOR", "COMMITTER") for w, v in {"NAME": "Ada", "EMAIL": "a@b.c"}.items()}
    cache = {"WORKBENCH_CACHE_DIR": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "100"}

    def run(folder: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "workbench.cli.entry", *arguments]
        settings = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL} | options
        return subprocess.run(command, cwd=folder, env=keep | who | cache, **settings)  # type: ignore[call-overload,no-any-return]

    return run


@pytest.fixture(scope="session")
def clone(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh workspace; tests that share it change nothing."""
    folder = tmp_path_factory.mktemp("workspace")
    done = cli(folder, "init", "agent")
    assert done.returncode == 0, done.stderr
    return folder / "agent"
