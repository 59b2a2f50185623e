"""What doctor finds wrong, the command that it names puts right."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from workbench.app import wiring
from workbench.app.doctor import examine, mend
from workbench.app.hub_host import install_hub, run_worker
from workbench.domain.errors import UserError
from workbench.domain.ids import make_ulid
from workbench.domain.ledger import Action
from workbench.hub.layout import HubLayout
from workbench.inference.variants import VARIABLE, chosen
from workbench.ports.store import Finding
from workbench.store.git.settings import init_clone


def wrong(path: Path) -> list[Finding]:
    with wiring.open_repository(path) as repository:
        return [f for f in examine(repository, quick=True) if "doctor --mend" in f.fix or "config" in f.fix]


def test_hooks_settings_and_attributes_are_put_right(tmp_path: Path) -> None:
    hub = install_hub(tmp_path / "hub.git")
    assert wrong(hub) == []
    (hub / "hooks" / "pre-receive").unlink()
    (hub / "hooks" / "proc-receive").write_text("#!/gone/venv/bin/python\n")
    (hub / "info" / "attributes").unlink()
    with (hub / "config").open("a") as config:
        config.write("[receive]\n\tdenyDeletes = false\n")
    found = wrong(hub)
    assert len(found) == 4, found
    with wiring.open_repository(hub) as repository:
        done = list(mend(repository))
    assert "set receive.denyDeletes to true" in done
    assert wrong(hub) == []


def test_a_clones_hooks_are_left_to_its_owner(tmp_path: Path) -> None:
    git_dir = init_clone(tmp_path / "clone")
    hook = git_dir / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("mine")
    with wiring.open_repository(git_dir) as repository:
        list(mend(repository))
    assert hook.read_text() == "mine"
    assert wrong(git_dir) == []


@pytest.mark.parametrize("severity", ["ok", "warning", "error"])
def test_what_is_wrong_has_a_fix_and_what_is_right_has_none(tmp_path: Path, severity: str) -> None:
    hub = install_hub(tmp_path / "hub.git")
    (hub / "hooks" / "pre-receive").unlink()
    with wiring.open_repository(hub) as repository:
        found = [f for f in examine(repository, quick=True) if f.severity == severity]
    assert all(bool(f.fix) == (severity != "ok") for f in found), found


def test_a_queue_that_does_not_move_is_found_and_the_command_that_is_named_moves_it(tmp_path: Path) -> None:
    hub = install_hub(tmp_path / "hub.git")
    queue = HubLayout(hub)
    queue.worker_lock.touch()  # of a worker that has ended
    tree = git(hub, "mktree", input="")
    git(hub, "update-ref", "refs/heads/main", git(hub, "commit-tree", "-m", "one", tree))
    with wiring.open_repository(hub) as repository:
        beside = [f for f in examine(repository, quick=True) if "moved beside the ledger" in f.what]
        assert [(f.severity, f.fix) for f in beside] == [("warning", "workbench worker --idle 5")]
        evidence = {"pusher": "owner", "run": make_ulid(1, bytes(10)), "work": []}
        repository.ledger.change(Action.PUSH, (), who="a <a@b>", why="", evidence=evidence)
        waits = [f for f in examine(repository, quick=True) if "no worker runs" in f.what]
        assert [(f.severity, f.what[:12]) for f in waits] == [("warning", "1 push waits")]
        with open(queue.worker_lock, "rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert not [f for f in examine(repository, quick=True) if "no worker runs" in f.what]
    run_worker(hub, idle_s=0.0)
    with wiring.open_repository(hub) as repository:
        assert not [f for f in examine(repository, quick=True) if "worker --idle" in f.fix]


def test_a_path_that_cannot_be_written_down_is_refused_for_a_hub_and_told_of_one(tmp_path: Path) -> None:
    place = tmp_path / "M\udcfcller.git"
    with pytest.raises(UserError, match="UTF-8"):
        install_hub(place)
    assert not place.exists()
    install_hub(tmp_path / "hub.git").rename(place)
    with wiring.open_repository(place) as repository:
        found = [f for f in examine(repository, quick=True) if "not UTF-8" in f.what]
    assert [f.severity for f in found] == ["error"]


def git(folder: Path, *arguments: str, input: str = "") -> str:
    who = {f"GIT_{role}_{field}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env={**os.environ, **who}, input=input, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_variant_of_llama_cpp_that_cannot_be_used_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    name = chosen().name
    assert not [f for f in examine(None, quick=True) if "z80" in f.what]
    monkeypatch.setenv(VARIABLE, "z80")
    told = [f for f in examine(None, quick=True) if "z80" in f.what]
    assert [f.severity for f in told] == ["error"]
    assert name in told[0].fix
