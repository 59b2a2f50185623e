"""What the hooks add to a small push: p50 of pushing one commit into three hubs, with and without them, in turns.

Prints one JSON object; milliseconds. ``--pushes N`` (default 60). The policy process is warm, as after a first push.
The third hub has two hooks that do nothing: what starting two programs takes on this machine, at this moment.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from workbench.app.hub_host import install_hub

AIM_MS = 25.0
EMPTY = "#!/bin/sh\nexit 0\n"


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def measure(pushes: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as name:
        root = Path(name)
        hubs = {kind: install_hub(root / f"{kind}.git") for kind in ("with", "without", "empty")}
        for kind in ("without", "empty"):
            for hook in (hubs[kind] / "hooks").iterdir():
                hook.unlink()
            git(hubs[kind], "config", "--unset", "receive.procReceiveRefs")
        for empty in ("pre-receive", "post-receive"):
            hook = hubs["empty"] / "hooks" / empty
            hook.write_text(EMPTY)
            hook.chmod(0o755)
        clone = root / "clone"
        subprocess.run(["git", "init", "-q", "-b", "main", str(clone)], check=True)
        git(clone, "config", "user.name", "bench")
        git(clone, "config", "user.email", "bench@localhost")
        times: dict[str, list[float]] = {kind: [] for kind in hubs}
        turns = random.Random(0)
        for number in range(pushes + 5):  # the first five warm everything up
            (clone / "notes.txt").write_text(f"{number}\n")
            git(clone, "add", "notes.txt")
            git(clone, "commit", "-q", "-m", f"note {number}")
            order = list(hubs.items())
            turns.shuffle(order)  # who comes after a slow one is slower
            for kind, hub in order:
                started = time.perf_counter()
                git(clone, "push", "-q", str(hub), "main")
                if number >= 5:
                    times[kind].append((time.perf_counter() - started) * 1000)
                time.sleep(0.03)  # the worker notes what was pushed; a person does not push that fast either
        stop(hubs["with"])
    p50 = {kind: statistics.median(values) for kind, values in times.items()}
    return {
        "bench": "hooks",
        "pushes": pushes,
        "push_p50_ms": round(p50["without"], 2),
        "push_with_hooks_p50_ms": round(p50["with"], 2),
        "added_by_empty_p50_ms": round(p50["empty"] - p50["without"], 2),
        "added_p50_ms": round(p50["with"] - p50["without"], 2),
        "added_paired_p50_ms": round(
            statistics.median(a - b for a, b in zip(times["with"], times["without"], strict=True)), 2
        ),
        "aim_ms": AIM_MS,
    }


def stop(hub: Path) -> None:
    for role in ("policy", "worker"):
        text = (hub / "workbench" / f"{role}.lock").read_text().strip()
        if text:
            os.kill(int(text), signal.SIGTERM)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pushes", type=int, default=60)
    print(json.dumps(measure(parser.parse_args().pushes)))
