"""What no push can leave is found and mended in hubs that have it already, and nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from workbench.app import wiring
from workbench.app.doctor import examine, mend
from workbench.domain.refs import Branch


def irregular(hub: Path) -> list[tuple[str, str]]:
    with wiring.open_repository(hub) as repository:
        return [(f.what, f.fix) for f in examine(repository) if f.severity == "error"]


def mended(hub: Path) -> list[str]:
    with wiring.open_repository(hub) as repository:
        return [line for line in mend(repository) if line.startswith("renamed")]


def test_a_branch_that_makes_pushes_of_main_ambiguous_is_renamed(desk: Any) -> None:
    hub = desk.under_test
    first = hub.commit(README="one\n")
    assert hub.push("main").accepted
    for name in ("refs/heads/main", "heads/main", "v7.7.7", "active", "refs/heads/main2"):
        hub.git("update-ref", f"refs/heads/{name}", first, folder=hub.path)
    hub.commit(README="two\n")
    assert "matches more than one" in hub.push("main").text
    assert [what.split(" ")[0] for what, _ in irregular(hub.path)] == [
        f"refs/heads/{name}" for name in ("active", "heads/main", "refs/heads/main", "refs/heads/main2", "v7.7.7")
    ]
    assert {fix for _, fix in irregular(hub.path)} == {"workbench doctor --mend"}
    assert len(mended(hub.path)) == 5
    assert irregular(hub.path) == []
    assert hub.push("main").accepted
    branches = {name: id for name, id in hub.source_refs().items() if name.startswith("refs/heads/work-")}
    assert len(branches) == 5
    assert set(branches.values()) == {first}
    with wiring.open_repository(hub.path) as repository:
        entries = [entry for entry in repository.ledger.history() if entry.action == "rename"]
    assert Branch("work-refs-heads-main") in {move.ref for entry in entries for move in entry.moves}


def test_after_a_version_with_the_last_number_others_can_follow_again(desk: Any) -> None:
    hub = desk.under_test
    hub.commit(README="one\n")
    assert hub.push("main", hub.tag("v1.2.0")).accepted
    last = "v999999999.999999999.999999999"
    hub.git("tag", "-a", last, "-m", "last", folder=hub.path)
    assert "not greater than" in hub.push(hub.tag("v1.3.0")).text or "no version can follow" in hub.push("v1.3.0").text
    assert mended(hub.path) == [f"renamed refs/tags/{last} to refs/tags/v2.0.0"]
    assert irregular(hub.path) == []
    assert hub.git("cat-file", "-p", "refs/tags/v2.0.0", folder=hub.path).splitlines()[2] == "tag v2.0.0"
    assert hub.push(hub.tag("v2.0.1")).accepted


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_files_of_another_user_are_named_with_the_command_that_gives_them_back(desk: Any) -> None:
    hub = desk.under_test
    hub.commit(README="one\n")
    assert hub.push("main").accepted
    foreign = hub.path / "refs" / "heads" / "main"
    os.chown(foreign, 65534, -1)
    [(what, fix)] = irregular(hub.path)
    assert "refs/heads/main" in what
    assert fix.startswith("sudo chown -R ")
    assert os.system(fix.removeprefix("sudo ")) == 0
    assert irregular(hub.path) == []
