"""The real sandbox; where a machine cannot confine, its tests are skipped with the reason."""

from __future__ import annotations

import pytest

from workbench.ports.sandbox import Job, Limits, SandboxResult
from workbench.sandbox.bubblewrap import Bubblewrap


@pytest.fixture(scope="session")
def sandbox() -> Bubblewrap:
    found = Bubblewrap()
    missing = found.probe()
    if missing:
        pytest.skip(missing)
    return found


@pytest.fixture(scope="session")
def python(sandbox: Bubblewrap):
    """Run Python source inside; the jail has only the system's interpreter."""
    if sandbox.run(Job(argv=["sh", "-c", "command -v python3"])).exit_code != 0:
        pytest.skip("the jail has no python3: install it under /usr")

    def run(source: str, **limits: float) -> SandboxResult:
        return sandbox.run(
            Job(argv=["python3", "-IS", "/in/a.py"], files={"a.py": source.encode()}, limits=Limits(**limits))
        )

    return run
