"""Resident processes whose hub is moved, removed or copied, whose package is upgraded, or whose traces lie about: a
push goes to the hub that it was made to, under the rules of the code that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import workbench
from workbench.app.hub_host import install_hub, open_hub
from workbench.app.wiring import open_repository
from workbench.cli import hook_client
from workbench.domain.run import State
from workbench.hub import runs
from workbench.hub.install import install_hooks
from workbench.hub.layout import FOLDER, HubLayout
from workbench.hub.queue import waiting
from workbench.hub.standing import Standing
from workbench.hub.worker import poke, work

Files = Callable[..., dict[str, str]]


@contextmanager
def cleaned(*hubs: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for hub in hubs:
            for role in ("policy", "worker"):
                hub.kill(role)


def with_main(hub: Any) -> Any:
    hub.commit("first", README="hello\n")
    assert hub.push("-o", "ci.skip", "main").accepted
    hub.settle()
    return hub


def at(hub: Any, path: Path) -> Any:
    """The hub that stands at another path; the clone pushes there."""
    hub.git("remote", "set-url", "hub", str(path))
    return type(hub)(path, hub.clone)


def push(hub: Any, *arguments: str, **environment: str) -> str:
    command = ["git", "-C", str(hub.clone), "push", "hub", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**hub.env, **environment}).stderr


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def copied(hub: Path, to: Path) -> None:
    """As a backup does: once more where a file went away while it was read, as the hub lives."""
    for _ in range(5):
        if subprocess.run(["cp", "-a", str(hub), str(to)], capture_output=True).returncode == 0:
            return
        removed(to)
    raise AssertionError("it cannot be copied")


def removed(folder: Path) -> None:
    """Also where its processes live, and write or take away what is theirs at the same time."""
    for _ in range(20):
        with suppress(OSError):
            shutil.rmtree(folder)
        if not folder.exists():
            return
    raise AssertionError("it cannot be removed")


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_push_to_a_hub_that_was_moved_does_not_reach_the_one_that_took_its_place(hub: Any, tmp_path: Path) -> None:
    """A push of refs alone: it has no quarantine that would give it away."""
    with_main(hub)
    old = hub.process("policy")
    moved = at(hub, hub.path.rename(tmp_path / "moved.git"))
    copied(moved.path, hub.path)
    HubLayout(hub.path).socket.unlink()
    HubLayout(hub.path).worker_wake.unlink(missing_ok=True)
    with cleaned(moved):
        pushed = moved.push("main:topic")
        assert pushed.accepted, pushed.text
        assert "refs/heads/topic" in moved.refs()
        assert "refs/heads/topic" not in hub.refs()
        assert moved.process("policy") != old


def test_a_hub_that_was_moved_takes_pushes_at_once(hub: Any, tmp_path: Path) -> None:
    with_main(hub)
    moved = at(hub, hub.path.rename(tmp_path / "moved.git"))
    with cleaned(moved):
        tip = moved.commit("second", README="two\n")
        assert moved.push("main").accepted
        assert moved.refs()["refs/heads/main"] == tip


def test_the_process_of_a_removed_hub_does_not_close_the_door_of_the_new_one(hub: Any) -> None:
    hub.commit("first", README="hello\n")
    assert "nothing was changed" in push(hub, "-o", "run.dry", "main", WORKBENCH_HUB_IDLE_S="0.5")
    old = hub.process("policy")
    removed(hub.path)
    install_hub(hub.path)
    assert hub.push("-o", "ci.skip", "main").accepted
    new = hub.process("policy")
    assert new != old
    hub.until(lambda: not is_alive(old))
    assert HubLayout(hub.path).socket.is_socket()
    assert hub.push("main:topic").accepted
    assert hub.process("policy") == new


def test_a_copy_of_a_living_hub_is_a_hub_of_its_own(hub: Any, tmp_path: Path) -> None:
    with_main(hub)
    copied(hub.path, tmp_path / "copy.git")
    copy = at(hub, tmp_path / "copy.git")
    with cleaned(copy):
        assert copy.push("main:topic").accepted
        assert "refs/heads/topic" in copy.refs()
        assert "refs/heads/topic" not in hub.refs()
        assert is_alive(hub.process("policy"))


def test_a_copy_of_a_hub_with_a_running_stage_leaves_that_stage_alone(
    desk: Any, toy_files: Files, tmp_path: Path, gates: Path
) -> None:
    """In the copy the run is abandoned: it is taken up there, and what runs belongs to the other one."""
    gate = gates / "gate"
    desk.under_test.edit(toy_files(f"wait for {gate}"))
    run = desk.told(desk.under_test.push("main"))
    worker = threading.Thread(target=desk.work)
    worker.start()
    desk.under_test.until((gates / "gate.reached").exists)
    copied(desk.under_test.path, tmp_path / "copy.git")
    with open_repository(tmp_path / "copy.git") as repository:
        assert runs.cancel_run(repository, run).state is State.CANCELLED
    gate.touch()
    worker.join()
    assert runs.show_run(desk.repository, run).state is State.SUCCEEDED


def test_a_worker_whose_hub_was_moved_ends_and_the_next_one_goes_on_there(
    hub: Any, toy_files: Files, tmp_path: Path, gates: Path
) -> None:
    gate = gates / "gate"
    hub.edit(toy_files(f"wait for {gate}"))
    hub.git("fetch", "-q", str(hub.clone), "main:main", folder=hub.path)
    with open_repository(hub.path) as repository:
        worker = threading.Thread(target=work, args=(open_hub(repository),), kwargs={"idle_s": 0.1})
        worker.start()
        hub.until((gates / "gate.reached").exists)
        moved = hub.path.rename(tmp_path / "moved.git")
        gate.touch()
        hub.until(lambda: poke(HubLayout(moved).worker_wake) or not worker.is_alive())
    assert not hub.path.exists()
    with open_repository(moved) as repository:
        assert work(open_hub(repository), idle_s=0.1) == 1
        [record] = runs.list_runs(repository)
        assert record.state is State.SUCCEEDED


def test_a_hub_whose_path_is_longer_than_the_name_of_a_socket_may_be(tmp_path: Path, hub: Any) -> None:
    folder = tmp_path / ("long-" * 30) / ("longer-" * 20)
    folder.mkdir(parents=True)
    long = at(hub, install_hub(folder / "hub.git"))
    assert len(str(HubLayout(long.path).socket)) > 300
    with cleaned(long):
        long.edit({"agents/a.py": "x = 1\n"})
        assert "succeeded" in push(long, "-o", "run.wait=60", "main")


# --- the code ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The package, installed where it can be upgraded."""
    target = tmp_path / "site" / "workbench"
    ignore = shutil.ignore_patterns("__pycache__", "template", "docs")
    shutil.copytree(Path(workbench.__file__).parent, target, ignore=ignore)
    return target


def python_of(installed: Path) -> Path:
    """An environment that has this package before ours, and all that it needs from ours."""
    venv = installed.parents[1] / "venv"
    packages = venv / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    (venv / "bin").mkdir()
    base = Path(getattr(sys, "_base_executable", sys.executable))
    (venv / "bin" / "python").symlink_to(base)
    (venv / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
    (packages / "first.pth").write_text("\n".join([str(installed.parent), *filter(None, sys.path)]) + "\n")
    return venv / "bin" / "python"


def test_a_push_after_an_upgrade_is_judged_by_the_new_code(hub: Any, installed: Path) -> None:
    install_hooks(hub.path, str(python_of(installed)))
    hub.commit("first", README="hello\n")
    assert "main -> main" in push(hub, "main")
    old = hub.process("policy")
    hub.git("checkout", "-q", "--orphan", "other")
    hub.commit("rewritten")
    assert "would lose commits" in push(hub, "+other:main")
    assert hub.process("policy") == old
    rules = installed / "hub" / "policy.py"
    text = rules.read_text().replace("would lose commits", "would forget commits")
    rules.unlink()
    rules.write_text(text)
    assert "would forget commits" in push(hub, "+other:main")
    assert hub.process("policy") != old
    hub.until(lambda: not is_alive(old))


def test_a_worker_whose_code_was_replaced_hands_over_between_two_pushes(
    hub: Any, toy_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gates: Path
) -> None:
    module, gate = types.ModuleType("workbench.probe"), gates / "gate"
    module.__file__ = str(tmp_path / "probe.py")
    (tmp_path / "probe.py").touch()
    monkeypatch.setitem(sys.modules, "workbench.probe", module)
    started: list[int] = []
    with open_repository(hub.path) as repository:
        host = replace(open_hub(repository), start_worker=lambda: started.append(len(waiting(repository))))
        for text in (f"wait for {gate}", "two"):
            hub.edit(toy_files(text))
            if text == "two":
                (tmp_path / "probe.py").write_text("upgraded")
            assert hub.push("main").accepted
            if text != "two":
                worker = threading.Thread(target=work, args=(host,), kwargs={"idle_s": 60})
                worker.start()
                hub.until((gates / "gate.reached").exists)
        gate.touch()
        worker.join()
        assert started == [1], "the second push is left to the new code"
        assert len(waiting(repository)) == 1


def test_standing_tells_a_folder_from_another_with_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    standing = Standing.now(folder)
    assert standing.holds()
    (folder / "file").touch()
    assert standing.holds()
    folder.rename(tmp_path / "moved")
    assert not standing.is_in_place()
    folder.mkdir()
    assert not standing.holds()
    assert not Standing.now(tmp_path / "nowhere").holds()


def test_standing_sees_code_that_is_replaced_at_once_and_code_that_is_written_over_by_a_closer_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "site" / "probe.py"
    code.parent.mkdir()
    code.touch()
    module = types.ModuleType("workbench.probe")
    module.__file__ = str(code)
    monkeypatch.setitem(sys.modules, "workbench.probe", module)
    standing = Standing.now(tmp_path)
    (code.parent / "__pycache__").mkdir()
    assert standing.holds(), "what is compiled beside it is not another code"
    code.write_text("in place")
    assert not standing.holds_to_the_letter()
    fresh = Standing.now(tmp_path)
    (code.parent / "next").write_text("replaced")
    (code.parent / "next").replace(code)
    assert not fresh.holds()
    assert not fresh.holds(), "and it stays so, however soon it is asked again"


# --- what lies about --------------------------------------------------------------------------------------------------


def test_names_of_living_processes_in_old_locks_and_a_dead_socket_stop_nobody(hub: Any) -> None:
    with_main(hub)
    hub.kill("policy")
    hub.kill("worker")
    layout = HubLayout(hub.path)
    assert layout.socket.is_socket(), "nobody answers there"
    for lock in (layout.policy_lock, layout.worker_lock, layout.folder / "writers.lock"):
        lock.write_text(f"{os.getpid()}\n")
    hub.edit({"agents/a.py": "x = 1\n"})
    assert "succeeded" in push(hub, "-o", "run.wait=60", "main")


def test_a_policy_process_without_a_socket_is_replaced(hub: Any) -> None:
    """Someone deleted the folder of the hub's processes while they lived."""
    with_main(hub)
    old = hub.process("policy")
    removed(hub.path / FOLDER)
    HubLayout(hub.path).create()
    hub.commit("second", README="two\n")
    assert hub.push("main").accepted
    assert hub.process("policy") != old
    hub.until(lambda: not is_alive(old))


def test_another_user_is_told_whose_hub_it_is() -> None:
    python = Path("/usr/bin/python3")
    if os.geteuid() != 0 or not python.exists():
        pytest.skip("only root can be somebody else, and that one needs a Python within reach")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        HubLayout(Path(folder)).create()
        shutil.copy(hook_client.__file__, folder)
        code = "import sys; sys.path.append('.'); import hook_client; hook_client.main('pre-receive')"
        done = subprocess.run(
            [python, "-IS", "-c", code], cwd=folder, user=65534, group=65534, extra_groups=[], env={},
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, hook_client.FOREIGN + "\n")
