"""Without its parts nothing runs, and the message says how to get them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from workbench.domain.errors import ToolMissing
from workbench.ports.sandbox import Job
from workbench.sandbox import bubblewrap, requirements
from workbench.sandbox.bubblewrap import Bubblewrap


@pytest.fixture
def fresh_probe():
    """The probe is cached per process: look again in this test, and again after it."""
    bubblewrap._probe.cache_clear()
    yield
    bubblewrap._probe.cache_clear()


def test_without_bubblewrap_a_run_is_refused_with_the_command_that_installs_it(monkeypatch, fresh_probe):
    which = requirements.shutil.which
    monkeypatch.setattr(requirements.shutil, "which", lambda n, **k: None if n == "bwrap" else which(n, **k))
    with pytest.raises(ToolMissing, match=r"bubblewrap is not installed; run: sudo .*bubblewrap|package manager"):
        Bubblewrap().run(Job(argv=["true"]))


@pytest.mark.parametrize("name", ["setpriv", "prlimit", "bash"])
def test_whatever_is_missing_is_named(monkeypatch, name: str):
    which = requirements.shutil.which
    monkeypatch.setattr(requirements.shutil, "which", lambda n, **k: None if n == name else which(n, **k))
    assert f"{name} is not installed; run: " in str(requirements.programs())


def test_without_a_filter_for_the_architecture_nothing_runs(monkeypatch, fresh_probe):
    monkeypatch.setattr(requirements.platform, "machine", lambda: "pdp11")
    with pytest.raises(ToolMissing, match="no system-call filter for pdp11"):
        Bubblewrap().run(Job(argv=["true"]))


def test_a_refusal_of_bubblewrap_is_explained():
    text = requirements.explain("bwrap: setting up uid map: Permission denied\n")
    assert "setting up uid map" in text
    assert "user namespaces" in text


@pytest.mark.parametrize("manager", ["apt-get", "dnf", "pacman"])
def test_the_install_command_is_that_of_the_machine_s_package_manager(monkeypatch, manager: str):
    monkeypatch.setattr(requirements.shutil, "which", lambda name, **_: name if name == manager else None)
    assert f"{manager} " in requirements.install_command()
    assert "bubblewrap" in requirements.install_command()


def test_importing_the_room_starts_nothing():
    code = "import sys, workbench.sandbox.bubblewrap; print('torch' in sys.modules, 'pygit2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
