"""Store, push, fetch and materialise rates beside plain git, DVC and git-lfs, on the same data in one run.

    ci/bench store [MIB] [FILES]        default: 512 MiB of weights and 2,000 small files

Every step is a process of its own, timed from start to end, start-up included; the disk is synced before each step.
git, DVC and git-lfs run with their defaults. "verified copy" is the least that a push or a fetch costs where nothing is
shared and nothing taken on trust: cp, sync, sha256sum.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROWS = ("store", "push", "fetch", "materialise")
WORKBENCH = """
import sys
from pathlib import Path
from workbench.domain.manifest import Manifest
from workbench.domain.refs import ArtifactTag, Kind
from workbench.domain.version import Bump
from workbench.store.git.repository import GitRepository
what, hub, folder = sys.argv[1:]
with GitRepository(Path(hub)) as repository:
    artifacts = repository.artifacts
    for kind, name in ((Kind.MODEL, "weights"), (Kind.RAW, "small")):
        if what == "store":
            staged = artifacts.stage(Path(folder) / name, Manifest(kind, name))
            artifacts.publish(staged, bump=Bump.MINOR, who="bench <bench@localhost>", why="bench")
        else:
            artifacts.checkout(artifacts.get(artifacts.latest(kind, name)), Path(folder) / name)
"""


# A process begins with the peak of the one that forks it, so a small one stands between this and what is measured.
LAUNCHER = """
import os, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run(sys.argv[2:]).returncode
seconds = time.perf_counter() - start
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    print(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, file=file)
sys.exit(code)
"""


@dataclass(frozen=True)
class Measured:
    seconds: float
    cpu_s: float  # user and system, of the whole tree
    peak_mib: float  # of its largest process


class Bench:
    def __init__(self, root: Path, mib: int, files: int) -> None:
        self.root = root
        self.env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(root / "home"),
            "PYTHONPATH": str(Path.cwd()),
            "LC_ALL": "C.UTF-8",
            "DVC_NO_ANALYTICS": "1",
            "WORKBENCH_CACHE_DIR": str(root / "cache"),
        }
        (root / "home").mkdir()
        for command in (
            "git config --global user.name bench",
            "git config --global user.email bench@localhost",
            "git config --global protocol.file.allow always",
        ):
            self.run(command)
        _make_data(root / "data", mib, files)

    def run(self, command: str | list[str], cwd: Path | None = None, **env: str) -> Measured:
        """One command to its end: time, and the largest process of its tree."""
        os.sync()
        words = ["sh", "-c", command] if isinstance(command, str) else command
        usage = self.root / "usage"
        child = subprocess.run(
            [sys.executable, "-IS", "-c", LAUNCHER, str(usage), *words],
            cwd=cwd or self.root,
            env={**self.env, **env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if child.returncode:
            raise SystemExit(f"{command} failed:\n{child.stderr.decode(errors='replace')[-2000:]}")
        return Measured(*map(float, usage.read_text().split()))

    def copy_of_data(self, name: str) -> Path:
        target = self.root / name
        shutil.copytree(self.root / "data", target)
        return target

    # --- the contestants ----------------------------------------------------------------------------------------------

    def workbench(self) -> Mapping[str, Measured]:
        from workbench.store.git.settings import init_hub

        hubs = [init_hub(self.root / f"wb-{name}.git") for name in ("a", "b", "c")]
        self.run(f"git --git-dir={hubs[1]} config --unset receive.procReceiveRefs")  # no hooks here: the store alone
        out = self.root / "wb-out"
        out.mkdir()
        python = [sys.executable, "-c", WORKBENCH]
        return {
            "store": self.run([*python, "store", str(hubs[0]), str(self.root / "data")]),
            "push": self.run(f"git --git-dir={hubs[0]} push -q file://{hubs[1]} 'refs/tags/*:refs/tags/*'"),
            "fetch": self.run(f"git --git-dir={hubs[2]} fetch -q file://{hubs[1]} 'refs/tags/*:refs/tags/*'"),
            "materialise": self.run([*python, "checkout", str(hubs[2]), str(out)]),
        }

    def git(self) -> Mapping[str, Measured]:
        work = self.copy_of_data("git-work")
        self.run("git init -q -b main && git init -q --bare ../git-hub.git", work)
        return {
            "store": self.run("git add . && git commit -q -m bench", work),
            "push": self.run(f"git push -q file://{self.root}/git-hub.git main", work),
            "fetch": self.run(f"git clone -q --no-checkout -b main file://{self.root}/git-hub.git git-out"),
            "materialise": self.run("git checkout -q main -- .", self.root / "git-out"),
        }

    def dvc(self) -> Mapping[str, Measured]:
        work = self.root / "dvc-work"
        work.mkdir()
        shutil.copytree(self.root / "data", work / "data")
        self.run("git init -q -b main && dvc init -q && dvc remote add -q -d local ../dvc-remote", work)
        store = self.run("dvc add -q data", work)
        self.run("git add . && git commit -q -m bench", work)
        push = self.run("dvc push -q", work)
        self.run("git clone -q -b main dvc-work dvc-out")
        self.run(f"dvc remote add -q -f -d local {self.root}/dvc-remote", self.root / "dvc-out")
        out = self.root / "dvc-out"
        return {
            "store": store,
            "push": push,
            "fetch": self.run("dvc fetch", out),
            "materialise": self.run("dvc checkout", out),
        }

    def lfs(self) -> Mapping[str, Measured]:
        work = self.copy_of_data("lfs-work")
        self.run("git lfs install --skip-repo")
        self.run("git init -q -b main && git lfs track '*.bin' && git init -q --bare ../lfs-hub.git", work)
        self.run(f"git remote add origin file://{self.root}/lfs-hub.git", work)
        store = self.run("git add . && git commit -q -m bench", work)
        push = self.run("git push -q origin main", work)
        clone = f"git clone -q -b main --no-checkout file://{self.root}/lfs-hub.git lfs-out"
        fetch = self.run(f"{clone} && cd lfs-out && git lfs fetch", GIT_LFS_SKIP_SMUDGE="1")
        return {
            "store": store,
            "push": push,
            "fetch": fetch,
            "materialise": self.run("git checkout -q main -- .", self.root / "lfs-out"),
        }

    def verified_copy(self) -> Mapping[str, Measured]:
        copied = "cp -r data copy && sync -f copy && find copy -type f -print0 | xargs -0 sha256sum"
        once = self.run(copied)
        shutil.rmtree(self.root / "copy")
        return {"push": once, "fetch": self.run(copied)}


def _make_data(folder: Path, mib: int, files: int) -> None:
    """Float32 weights, N(0, 0.02), and small source-like files that all differ."""
    import numpy as np

    (folder / "weights").mkdir(parents=True)
    (folder / "small").mkdir()
    random = np.random.default_rng(0)
    with open(folder / "weights" / "model.bin", "wb") as out:
        for _ in range(max(1, mib // 16)):
            out.write((random.standard_normal(4 << 20, np.float32) * 0.02).tobytes())
    text = Path(__file__).read_bytes()
    for number in range(files):
        path = folder / "small" / f"{number % 50:02d}" / f"{number}.rs"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"// %d\n" % number + text[number % 997 :][:4000])


def _table(mib: int, results: Mapping[str, Mapping[str, Measured]]) -> str:
    """Seconds (CPU seconds, peak MiB) for each, and how many times as long the others take as workbench."""
    others = [name for name in results if name != "workbench"]
    lines = [
        "| step | workbench | " + " | ".join(f"{name} | x" for name in others) + " |",
        "|---|---|" + "---|---|" * len(others),
    ]
    for row in ROWS:
        own = results["workbench"][row]
        cells = [f"{own.seconds:.1f} s, {mib / own.seconds:.0f} MiB/s ({own.cpu_s:.1f} s, {own.peak_mib:.0f} MiB)"]
        for name in others:
            it = results[name].get(row)
            cells += (
                [f"{it.seconds:.1f} s ({it.cpu_s:.1f} s, {it.peak_mib:.0f} MiB)", f"{it.seconds / own.seconds:.2f}"]
                if it
                else ["–", "–"]
            )
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    mib, files = (int(text) for text in (sys.argv[1:] + ["512", "2000"][len(sys.argv) - 1 :])[:2])
    results: dict[str, Mapping[str, Measured]] = {}
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as folder:
        bench = Bench(Path(folder), mib, files)
        contestants: Mapping[str, Callable[[], Mapping[str, Measured]]] = {
            "workbench": bench.workbench, "git": bench.git, "DVC": bench.dvc, "git-lfs": bench.lfs,
            "verified copy": bench.verified_copy,
        }  # fmt: skip
        for name, measure in contestants.items():
            program = {"workbench": "git", "DVC": "dvc", "verified copy": "cp"}.get(name, name)
            if shutil.which(program, path=bench.env["PATH"]) is None:
                print(f"{name} is not installed: left out", file=sys.stderr)
                continue
            print(f"{name} …", file=sys.stderr, flush=True)
            results[name] = measure()
            for path in Path(folder).iterdir():
                if path.name not in ("data", "home", "cache"):
                    shutil.rmtree(path, ignore_errors=True)
    said = "x: how many times as long as workbench; in brackets: CPU, largest process"
    print(f"{mib} MiB of weights and {files} small files; {said}\n")
    print(_table(mib, results))


if __name__ == "__main__":
    main()
