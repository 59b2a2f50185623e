"""A push that moves main, or makes a version, has its contract recorded: in the sandbox, whatever its code does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench.app import wiring
from workbench.domain.ids import ObjectId

TOOL = "from workbench.sdk import tool\n\n@tool()\ndef {name}() -> int:\n    return 1\n"
HOSTILE = "import pathlib\npathlib.Path({mark!r}).touch()\nimport os\nos._exit(0)\n"


def recorded(desk: Any, commit: str) -> Any:
    agents = desk.repository.objects.entry(ObjectId(commit), "agents")
    return desk.repository.contracts.get(agents.id)


@pytest.fixture(autouse=True)
def _confined() -> None:
    if missing := wiring.sandbox().probe():
        pytest.skip(missing)


def test_the_contract_of_main_and_of_a_version_is_recorded_by_the_worker(desk: Any) -> None:
    hub = desk.under_test
    first = hub.edit({"agents/a.py": TOOL.format(name="first")})
    assert hub.push("HEAD:main").accepted
    assert recorded(desk, first) is None  # not in the hook: nobody waits for it
    desk.work()
    assert list(recorded(desk, first).contract["tools"]) == ["first"]
    second = hub.edit({"agents/a.py": TOOL.format(name="second")})
    assert hub.push("HEAD:main", hub.tag("v1.0.0")).accepted
    desk.work()
    assert list(recorded(desk, second).contract["tools"]) == ["second"]


def test_hostile_code_of_a_push_runs_in_the_sandbox_alone_and_holds_up_nobody(desk: Any, tmp_path: Path) -> None:
    hub, mark = desk.under_test, tmp_path / "mark"
    bad = hub.edit({"agents/a.py": HOSTILE.format(mark=str(mark))})
    assert hub.push("HEAD:main").accepted
    branch = hub.edit({"agents/a.py": TOOL.format(name="b")})
    assert hub.push("HEAD:refs/heads/topic", "-o", "ci.tier=micro").accepted
    desk.work()
    assert desk.waiting() == []
    assert "cannot be loaded: a.py, line 2: FileNotFoundError" in recorded(desk, bad).why
    assert recorded(desk, branch) is None  # of a branch nobody asks
    assert not mark.exists()
