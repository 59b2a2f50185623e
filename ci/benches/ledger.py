"""Ledger changes a second beside plain `git update-ref --stdin` transactions and `git push --atomic` of the same refs.

Prints one JSON object. All three move the same three refs to and fro between two commits, in turns, with
`core.fsync=all`. A ledger change also writes its entry (who, why, evidence), is atomic when it is killed, and is still
there after a power cut; the other two are not. Of its time, `own_syncs` is what the store itself syncs beside git and
libgit2: folders, and the notes of what is begun and locked; `no_folder_syncs` is the rate without them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workbench.domain.ids import EMPTY_TREE, ZERO_ID, ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub

WHO = "Bench <bench@localhost>"
REFS = ("refs/workbench/channels/active", "refs/workbench/channels/canary", "refs/heads/main")
AIM_OVER_PUSH = 1.0
Change = Callable[[ObjectId, ObjectId], None]  # old, new


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def hub(root: Path, name: str) -> GitRepository:
    """A hub without hooks, so that a push is git's alone, with the two commits in it and the refs at neither."""
    path = init_hub(root / f"{name}.git")
    git(path, "config", "--unset-all", "receive.procReceiveRefs")
    git(path, "config", "receive.denyNonFastForwards", "false")
    git(path, "config", "core.fsync", "all")
    return GitRepository(path)


def commits(repository: GitRepository) -> tuple[ObjectId, ObjectId]:
    first = repository.objects.add_commit(EMPTY_TREE, parents=(), message="a", who=WHO, time_ms=0)
    second = repository.objects.add_commit(EMPTY_TREE, parents=(), message="b", who=WHO, time_ms=0)
    return first, second


def by_ledger(repository: GitRepository) -> Change:
    def change(old: ObjectId, new: ObjectId) -> None:
        moves = [RefMove.named(ref, old, new) for ref in REFS]
        repository.ledger.change(Action.PROMOTE, moves, who=WHO, why="a bench", evidence={"reward": 0.5})

    return change


@dataclass
class Syncs:
    count: int = 0
    spent_s: float = 0.0


@contextmanager
def counted(syncs: Syncs, *, skipped: bool = False) -> Iterator[None]:
    """Count and time the syncs of this process, or leave them out."""

    def of(real: Callable[[int], None]) -> Callable[[int], None]:
        def sync(fd: int) -> None:
            started = time.perf_counter()
            if not skipped:
                real(fd)
            syncs.count += 1
            syncs.spent_s += time.perf_counter() - started

        return sync

    real = os.fsync, os.fdatasync
    os.fsync, os.fdatasync = of(os.fsync), of(os.fdatasync)
    try:
        yield
    finally:
        os.fsync, os.fdatasync = real


def by_update_ref(path: Path) -> Change:
    command = ["git", f"--git-dir={path}", "-c", "core.fsync=all", "update-ref", "--stdin"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    asks, answers = process.stdin, process.stdout

    def change(old: ObjectId, new: ObjectId) -> None:
        lines = ["start", *(f"update {ref} {new} {old}" for ref in REFS), "prepare", "commit"]
        asks.write("".join(line + "\n" for line in lines).encode())
        asks.flush()
        for _ in range(3):  # start, prepare, commit
            assert answers.readline().endswith(b": ok\n")

    return change


def by_push(root: Path, path: Path) -> Change:
    clone = root / "clone.git"
    subprocess.run(["git", "clone", "-q", "--mirror", str(path), str(clone)], check=True)

    def change(old: ObjectId, new: ObjectId) -> None:
        git(clone, "push", "-q", "--force", "--atomic", str(path), *(f"{new}:{ref}" for ref in REFS))

    return change


def measure(changes: int, pushes: int, rounds: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as name:
        root = Path(name)
        hubs = {each: hub(root, each) for each in ("ledger", "no_folder_syncs", "update_ref", "push")}
        pairs = {each: commits(repository) for each, repository in hubs.items()}
        for each, repository in hubs.items():
            repository.refs.swap([RefMove.named(ref, ZERO_ID, pairs[each][0]) for ref in REFS])
            if each == "push":  # the clone needs both commits; a mirror brings what refs name
                repository.refs.swap([RefMove.named("refs/heads/other", ZERO_ID, pairs[each][1])])
        contestants = {
            "ledger": (by_ledger(hubs["ledger"]), changes),
            "no_folder_syncs": (by_ledger(hubs["no_folder_syncs"]), changes),
            "update_ref": (by_update_ref(hubs["update_ref"].path), changes),
            "push": (by_push(root, hubs["push"].path), pushes),
        }
        rates: dict[str, list[float]] = {each: [] for each in contestants}
        syncs, left_out = Syncs(), Syncs()
        for number in range(rounds + 1):  # the first warms everything up
            for each, (change, count) in contestants.items():
                with counted(syncs if each == "ledger" else left_out, skipped=each == "no_folder_syncs"):
                    rate = _rate(change, pairs[each], count)
                if number:
                    rates[each].append(rate)
        entries = len(hubs["ledger"].ledger.history(1 << 20))
        assert entries >= changes * rounds, "the ledger lost an entry"
    middle = {each: statistics.median(found) for each, found in rates.items()}
    return {
        "bench": "ledger",
        "refs_per_change": len(REFS),
        "rounds": rounds,
        "changes_per_s": {each: round(value, 1) for each, value in middle.items()},
        "own_syncs": round(syncs.count / (changes * (rounds + 1)), 1),
        "own_syncs_ms": round(syncs.spent_s * 1000 / (changes * (rounds + 1)), 2),
        "over_update_ref": round(middle["ledger"] / middle["update_ref"], 3),
        "over_push": round(middle["ledger"] / middle["push"], 2),
        "aim_over_push": AIM_OVER_PUSH,
    }


def _rate(change: Change, pair: tuple[ObjectId, ObjectId], count: int) -> float:
    """Changes a second; an even number, so that the refs end where they began."""
    first, second = pair
    started = time.perf_counter()
    for _ in range(count // 2):
        change(first, second)
        change(second, first)
    return count // 2 * 2 / (time.perf_counter() - started)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--pushes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(json.dumps(measure(given.changes, given.pushes, given.rounds)))
