"""Compare-and-swap by many processes that are killed at random: nothing acknowledged is lost."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from workbench.store.git.settings import init_hub

_WORKER = """
import os, random, sys
from pathlib import Path
from workbench.domain.errors import Conflict
from workbench.domain.ids import ZERO_ID
from workbench.domain.ledger import RefMove
from workbench.store.git.repository import GitRepository
hub, acknowledged, wanted, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
pick = random.Random(seed)
log = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
with GitRepository(hub) as repository:
    number = 0
    tree = repository.objects.add_tree(None, {"file": b"text"})
    while os.fstat(log).st_size < wanted * 41:
        number += 1
        ref = f"refs/workbench/journal/s{pick.randrange(4)}"
        old = repository.refs.get(ref)
        new = repository.objects.add_commit(
            tree, parents=[old] if old else [], message=f"{seed} {number}\\n", who="A <a@b.c>", time_ms=number * 1000
        )
        try:
            repository.refs.swap([RefMove.named(ref, old or ZERO_ID, new)])
        except Conflict:
            continue
        os.write(log, f"{new}\\n".encode())
"""


def race(folder: Path, *, processes: int, changes: int, kill_every_s: float, seed: int) -> tuple[int, int]:
    """Run ``processes`` until ``changes`` are acknowledged, killing one at random again and again, with or without its
    gits; (changes, kills)."""
    hub, log = init_hub(folder / "hub.git"), folder / "acknowledged"
    pick, kills, started = random.Random(seed), 0, 0

    def start() -> subprocess.Popen[bytes]:
        nonlocal started
        started += 1
        return subprocess.Popen([sys.executable, "-c", _WORKER, str(hub), str(log), str(changes), f"{seed}-{started}"])

    def acknowledged_now() -> int:
        return log.stat().st_size // 41 if log.exists() else 0

    running = [start() for _ in range(processes)]
    while (before := acknowledged_now()) < changes:
        wanted, deadline = min(changes, before + pick.randrange(1, 40)), time.monotonic() + 120
        while acknowledged_now() < wanted:  # or a slow machine would kill each before its first change
            assert time.monotonic() < deadline, "nobody changes anything"
            time.sleep(0.01)
        time.sleep(pick.uniform(0, 2 * kill_every_s))  # the moment of the kill is what is random here
        at = pick.randrange(processes)
        if running[at].poll() is None:
            gits = psutil.Process(running[at].pid).children() if pick.random() < 0.5 else []
            running[at].kill()
            for git in gits:  # these end by themselves, and take their locks along, unless they are killed as well
                with suppress(psutil.NoSuchProcess):
                    git.kill()
            kills += 1
        assert running[at].wait(60) in (0, -9)
        running[at] = start()
    for process in running:
        assert process.wait(120) == 0
    acknowledged = log.read_text().split()
    command = ["git", "--git-dir", str(hub)]
    kept = subprocess.run([*command, "rev-list", "--glob=refs/workbench/journal/*"], capture_output=True, text=True)
    lost = set(acknowledged) - set(kept.stdout.split())
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged changes are lost"
    fsck = subprocess.run([*command, "fsck", "--strict", "--no-dangling"], capture_output=True, text=True)
    assert fsck.returncode == 0, fsck.stderr
    return len(acknowledged), kills


def test_a_thousand_changes_by_four_processes_survive_kills(tmp_path: Path) -> None:
    changes, _ = race(tmp_path, processes=4, changes=1000, kill_every_s=0.3, seed=1)
    assert changes >= 1000


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_a_hundred_thousand_changes_by_sixteen_processes_survive_kills(tmp_path: Path) -> None:
    changes, kills = race(tmp_path, processes=16, changes=100_000, kill_every_s=2.0, seed=2)
    print(f"{changes} changes, {kills} kills")
    assert changes >= 100_000
    assert kills >= 50
