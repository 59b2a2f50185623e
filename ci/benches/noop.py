"""A `workbench run` that finds nothing to do beside such a `dvc repro`, and `workbench status` beside `git status`.

Prints one JSON object; medians in seconds, taken in turns. ``--workspace PATH``: a clone whose nine stages have run
(default: the demo's, which `ci/demo` makes). DVC's nine stages are trivial ones in a fresh repository.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

BIN = Path(sys.executable).parent
WORKBENCH = str(BIN / "workbench")
DVC = str(BIN / "dvc")
STAGES = 9
STATUS_AIM = 2.0


def seconds(command: Sequence[str], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - started


def make_dvc(folder: Path) -> None:
    """Nine stages in a row, each a copy of the one before, all of them up to date."""
    for command in (
        ["git", "init", "-q"],
        [DVC, "init", "-q"],
        [DVC, "config", "core.analytics", "false"],
        [DVC, "config", "core.check_update", "false"],
    ):
        subprocess.run(command, cwd=folder, check=True, env={**os.environ, "DVC_NO_ANALYTICS": "1"})
    (folder / "0.txt").write_text("start\n")
    for number in range(STAGES):
        before, after = f"{number}.txt", f"{number + 1}.txt"
        stage = [DVC, "stage", "add", "-q", "-n", f"s{number}", "-d", before, "-o", after, f"cp {before} {after}"]
        subprocess.run(stage, cwd=folder, check=True)
    subprocess.run([DVC, "repro", "-q"], cwd=folder, check=True)


def check_workspace(folder: Path) -> None:
    """Its nine stages must all be reused, or the comparison says nothing."""
    dry = [WORKBENCH, "run", "--dry-run", "--json"]
    if not folder.is_dir():
        raise SystemExit(f"no workspace at {folder}\n  make one with ci/demo, or give --workspace PATH")
    plan = json.loads(subprocess.run(dry, cwd=folder, check=True, capture_output=True).stdout)
    runs = [step["stage"] for step in plan["steps"] if step["runs"]]
    if runs or len(plan["steps"]) != STAGES:
        raise SystemExit(f"{folder} has stages to run: {', '.join(runs)}\n  run it first: workbench run")


def measure(workspace: Path, rounds: int) -> dict[str, object]:
    check_workspace(workspace)
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as name:
        peer = Path(name)
        make_dvc(peer)
        commands = {
            "workbench_run": ([WORKBENCH, "run"], workspace),
            "dvc_repro": ([DVC, "repro", "-q"], peer),
            "workbench_status": ([WORKBENCH, "status"], workspace),
            "git_status": (["git", "status"], workspace),
            "python_pass": ([sys.executable, "-c", "pass"], workspace),
        }
        times: dict[str, list[float]] = {label: [] for label in commands}
        for round_number in range(rounds + 1):  # the first warms everything up
            for label, (command, folder) in commands.items():
                took = seconds(command, folder)
                if round_number:
                    times[label].append(took)
    p50 = {label: statistics.median(values) for label, values in times.items()}
    base = p50["git_status"] + p50["python_pass"]
    return {
        "bench": "noop",
        "rounds": rounds,
        "p50_s": {label: round(value, 3) for label, value in p50.items()},
        "run_over_dvc": round(p50["workbench_run"] / p50["dvc_repro"], 3),
        "run_aim": 1.0,
        "status_over_git_and_python": round(p50["workbench_status"] / base, 3),
        "status_aim": STATUS_AIM,
    }


def main() -> None:
    demo = Path(os.environ.get("WORKBENCH_DEMO_DIR", ".demo")).absolute()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=demo / "agent")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    if (demo / "cache").is_dir():
        os.environ.setdefault("WORKBENCH_CACHE_DIR", str(demo / "cache"))
    print(json.dumps(measure(given.workspace, given.rounds), indent=1))


if __name__ == "__main__":
    main()
