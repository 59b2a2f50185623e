"""Runs and the run cache: files and checkpoints of a run, replaced as a whole, freed when replaced."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.domain.action import ActionParts
from workbench.domain.errors import Corrupt, Refused
from workbench.domain.ids import Ulid, make_ulid
from workbench.domain.ledger import RefMove
from workbench.domain.refs import RunRef

RUN = make_ulid(1_700_000_000_000, bytes(10))
LATER = make_ulid(1_700_000_000_001, bytes(10))


def test_files_are_set_replaced_and_removed_in_one_commit(repository: Any) -> None:
    runs = repository.runs
    assert runs.read(RUN, "run.json") is None
    runs.write(RUN, {"run.json": b"1", "logs/train.log": b"x"})
    runs.write(RUN, {"run.json": b"2", "logs/train.log": None})
    assert runs.read(RUN, "run.json") == b"2"
    assert runs.read(RUN, "logs/train.log") is None
    assert runs.read(RUN, "logs") is None
    assert repository.objects.commit(repository.refs.get(str(RunRef(RUN)))).parents == ()


def test_runs_are_listed_newest_first_and_deleted(repository: Any) -> None:
    for run in (RUN, LATER):
        repository.runs.write(run, {"run.json": b"{}"})
    assert repository.runs.list() == [LATER, RUN]
    repository.runs.delete([LATER, make_ulid(5, bytes(10))])
    assert repository.runs.list() == [RUN]


def test_a_checkpoint_comes_back_verified(repository: Any, lab: Any, tmp_path: Path) -> None:
    weights = random.Random(2).randbytes(9 << 20)
    repository.runs.write(RUN, {}, folders={"checkpoint": lab.folder("c", {"w.bin": weights, "s/state.json": b"{}"})})
    assert repository.runs.checkout_folder(RUN, "checkpoint", tmp_path / "out")
    assert (tmp_path / "out" / "w.bin").read_bytes() == weights
    assert (tmp_path / "out" / "s" / "state.json").read_bytes() == b"{}"
    assert not repository.runs.checkout_folder(RUN, "nothing", tmp_path / "other")
    assert not repository.runs.checkout_folder(LATER, "checkpoint", tmp_path / "other")
    with pytest.raises(Refused):
        repository.runs.checkout_folder(RUN, "checkpoint", tmp_path / "out")
    repository.runs.write(RUN, {}, folders={"checkpoint": None})
    assert not repository.runs.checkout_folder(RUN, "checkpoint", tmp_path / "other")


def test_a_replaced_checkpoint_frees_its_bytes(hub: Any, lab: Any) -> None:
    for n in range(3):
        weights = random.Random(n).randbytes(1 << 20)
        hub.runs.write(RUN, {"n": b"%d" % n}, folders={"checkpoint": lab.folder("c", {"w.bin": weights})})
    reachable = lab.git(hub.path, "rev-list", "--objects", "--disk-usage", "--all")
    assert int(reachable) < 1.2 * (1 << 20)


def test_a_checkpoint_with_a_wrong_byte_is_corrupt_and_leaves_nothing(
    repository: Any, lab: Any, tmp_path: Path
) -> None:
    repository.runs.write(RUN, {}, folders={"checkpoint": lab.folder("c", {"w.bin": b"right"})})
    repository.runs.write(RUN, {"checkpoint/payload/w.bin": b"wrong"})
    with pytest.raises(Corrupt, match=r"w\.bin"):
        repository.runs.checkout_folder(RUN, "checkpoint", tmp_path / "out")
    assert [path for path in tmp_path.iterdir() if "out" in path.name] == []


def test_writers_of_different_files_do_not_lose_each_other(hub: Any) -> None:
    program = """
import sys
from pathlib import Path
from workbench.store.git.repository import GitRepository
hub, run, who = sys.argv[1:]
with GitRepository(Path(hub)) as repository:
    for n in range(12):
        repository.runs.write(run, {f"{who}/{n}": b"x"})
"""
    command = [sys.executable, "-c", program, str(hub.path), RUN]
    running = [subprocess.Popen([*command, f"w{n}"], stderr=subprocess.PIPE, text=True) for n in range(2)]
    for process in running:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    assert len(list(hub.objects.walk(hub.refs.get(str(RunRef(RUN)))))) == 24


def test_a_ref_that_is_no_run_is_not_listed(repository: Any, lab: Any) -> None:
    tree = repository.objects.add_tree(None, {"a": b"1"})
    commit = repository.objects.add_commit(tree, parents=(), message="x", who=lab.who, time_ms=0)
    repository.refs.swap([RefMove.named("refs/workbench/runs/other", new=commit)])
    assert repository.runs.list() == []


def test_the_run_cache_keeps_evidence_of_stages_without_artifacts(repository: Any, lab: Any) -> None:
    key = "a" * 64
    entry = {"artifact": "", "tree": "", "commit": "", "parts": ActionParts("serve", "rust", "", "c").to_json()}
    repository.run_cache.put(key, entry, who=lab.who, why="served")
    assert repository.run_cache.get(key) == entry == repository.run_cache.last("serve", "rust")
    other = {**entry, "parts": ActionParts("serve", "go", "", "c").to_json()}
    repository.run_cache.put("b" * 64, other, who=lab.who, why="served")
    assert repository.run_cache.last("serve", "rust") == entry
    assert isinstance(Ulid(RUN), str)
