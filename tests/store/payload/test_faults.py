"""Publishing one artifact, killed or failed at its system calls: afterwards it is there whole, or not at all.

strace attaches to a process that has opened the repository, so that only the publication is counted; its git children
are followed. By default some points are tried, with ``--long`` every one.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from workbench.domain.errors import Corrupt
from workbench.domain.manifest import Manifest
from workbench.domain.refs import ArtifactTag, Kind
from workbench.domain.version import Bump
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: apt-get install strace")
FILES = {"w.bin": random.Random(4).randbytes(9 << 20), "a.txt": b"text\n" * 100, "d/b.txt": b""}
PARTS = {
    "format": 2, "makes": "model",
    "stage": "train", "name": "rust", "code": "0" * 64, "params": {}, "seed": 0, "inputs": {}, "environment": {}
}  # fmt: skip
PROGRAM = f"""
import sys
from pathlib import Path
from workbench.domain.manifest import Manifest
from workbench.domain.refs import Kind
from workbench.domain.version import Bump
from workbench.store.git.repository import GitRepository
import workbench.store.payload.artifacts, pygit2
hub, payload = sys.argv[1:]
repository = GitRepository(Path(hub))
artifacts = repository.artifacts
print("ready", flush=True)
sys.stdin.readline()
staged = artifacts.stage(Path(payload), Manifest(Kind.MODEL, "rust"))
artifacts.publish(staged, bump=Bump.MINOR, who="A <a@localhost>", why="a test", cache={PARTS!r})
print("done", flush=True)
"""
WORLD = (
    "openat",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "link",
    "unlink",
    "fchmod",
    "mkdir",
    "ftruncate",
)


def publish_under(hub: Path, payload: Path, *strace: str) -> tuple[bool, str, str]:
    """Whether it said that it was done, its errors, and what strace wrote."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(hub), str(payload)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    trace = hub.parent / "trace"
    tracer = subprocess.Popen(
        ["strace", "-f", "-qqq", "-o", str(trace), "-p", str(child.pid), *strace],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    status = Path(f"/proc/{child.pid}/status")
    for _ in range(5000):  # until it is attached
        if not re.search(r"^TracerPid:\t0$", status.read_text(), re.M):
            break
        threading.Event().wait(0.002)
    stdout, stderr = child.communicate("go\n", timeout=120)
    tracer.wait(timeout=60)
    return "done" in stdout, stderr, trace.read_text(errors="replace")


def points(tmp_path: Path) -> dict[str, int]:
    """How often one thread makes each system call while it publishes."""
    payload, hub = tmp_path / "in", init_hub(tmp_path / "count" / "hub.git")
    done, stderr, trace = publish_under(hub, payload)
    assert done, stderr
    calls = Counter(re.findall(r"^(\d+) +([a-z_0-9]+)\(", trace, re.M))
    counts: dict[str, int] = {}
    for (_, name), count in calls.items():
        counts[name] = max(counts.get(name, 0), count)
    return counts


def check(root: Path, payload: Path, call: str, nth: int, fault: str) -> bool:
    """Inject one fault in a fresh repository, then judge what is left; whether the fault came to pass."""
    hub = init_hub(root / "hub.git")
    said_done, stderr, trace = publish_under(
        hub, payload, "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={nth}"
    )
    where = f"{call} {nth} {fault}: {stderr[-500:]}"
    with GitRepository(hub) as repository:
        repository.ledger.recover()
        tags = repository.artifacts.list()
        assert tags in ([], [ArtifactTag.parse("model/rust/v1.0.0")]), where
        assert tags or not said_done, where
        assert ((head := repository.ledger.head()) is not None) == bool(tags), where
        assert bool(repository.run_cache.last("train", "rust")) == bool(tags), where
        for tag in tags:
            assert head is not None
            repository.artifacts.checkout(repository.artifacts.get(tag), root / "out")
        fsck = subprocess.run(
            ["git", f"--git-dir={hub}", "fsck", "--strict", "--no-dangling"], capture_output=True, text=True
        )
        assert fsck.returncode == 0, where + fsck.stderr
        assert not re.search("corrupt|missing|broken", fsck.stderr + fsck.stdout), where
        staged = repository.artifacts.stage(payload, Manifest(Kind.MODEL, "rust"))
        again = repository.artifacts.publish(staged, bump=Bump.MINOR, who="B <b@localhost>", why="again")
        assert again.tag.short == "model/rust/v1.0.0", where
        repository.artifacts.read(again, "w.bin")
    shutil.rmtree(root)
    return "INJECTED" in trace or "killed by SIGKILL" in trace


def every_point(tmp_path: Path) -> list[tuple[str, int, str]]:
    counts = points(tmp_path)
    killed = [(call, nth, "signal=KILL") for call, count in counts.items() for nth in range(1, count + 1)]
    failed = [
        (call, nth, f"error={error}")
        for call in WORLD for nth in range(1, counts.get(call, 0) + 1) for error in ("ENOSPC", "EIO")
    ]  # fmt: skip
    return sorted(killed + failed)


@needs_strace
def test_at_some_system_calls_publication_is_all_or_nothing(lab: Any, tmp_path: Path) -> None:
    payload = lab.folder("in", FILES)
    candidates = [point for point in every_point(tmp_path) if point[0] in WORLD]
    some = random.Random(17).sample(candidates, 8)
    hit = [check(tmp_path / f"p{index}", payload, *point) for index, point in enumerate(some)]
    assert sum(hit) >= 6  # threads share the work differently from one time to the next


@needs_strace
@pytest.mark.long
@pytest.mark.timeout(7200)
def test_at_every_system_call_publication_is_all_or_nothing(lab: Any, tmp_path: Path) -> None:
    payload = lab.folder("in", FILES)
    todo = every_point(tmp_path)
    assert len(todo) > 200
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(check, tmp_path / f"p{n}", payload, *point) for n, point in enumerate(todo)]
        failures = [str(each.exception()) for each in running if each.exception() is not None]
    assert failures == []
    assert sum(each.result() for each in running) > 0.9 * len(todo)


def test_every_kind_of_flipped_byte_is_found_before_use(hub: Any, lab: Any, tmp_path: Path) -> None:
    artifact = lab.publish(hub, lab.folder("in", FILES))
    (pack,) = (hub.path / "objects" / "pack").glob("*.pack")
    pack.chmod(0o644)
    good = pack.read_bytes()
    middle = good.find(FILES["w.bin"][100:140])
    assert middle > 0
    pick = random.Random(6)
    for position in [middle, middle + (5 << 20), *(pick.randrange(12, len(good) - 20) for _ in range(10))]:
        bad = bytearray(good)
        bad[position] ^= 1 << pick.randrange(8)
        pack.write_bytes(bad)
        with GitRepository(hub.path) as fresh:
            with pytest.raises(Corrupt, match=r"w\.bin|\.txt|object|blob|tree|manifest"):
                fresh.artifacts.checkout(fresh.artifacts.get(artifact.tag), tmp_path / "out")
            assert not (tmp_path / "out").exists()
    pack.write_bytes(good[: len(good) // 2])
    with GitRepository(hub.path) as fresh, pytest.raises(Corrupt):
        fresh.artifacts.checkout(fresh.artifacts.get(artifact.tag), tmp_path / "out")


def test_the_error_names_the_file_that_is_damaged(hub: Any, lab: Any, tmp_path: Path) -> None:
    artifact = lab.publish(hub, lab.folder("in", FILES))
    (pack,) = (hub.path / "objects" / "pack").glob("*.pack")
    pack.chmod(0o644)
    data = bytearray(pack.read_bytes())
    data[data.find(FILES["w.bin"][100:140])] ^= 1
    pack.write_bytes(data)
    with GitRepository(hub.path) as fresh:
        with pytest.raises(Corrupt, match=r"w\.bin"):
            fresh.cache.file(artifact, "w.bin")
        assert fresh.artifacts.read(artifact, "a.txt") == FILES["a.txt"]


def test_publishers_of_one_name_get_rising_versions(hub: Any, tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from workbench.domain.manifest import Manifest
from workbench.domain.refs import Kind
from workbench.domain.version import Bump
from workbench.store.git.repository import GitRepository
hub, folder, who = sys.argv[1:]
with GitRepository(Path(hub)) as repository:
    for n in range(4):
        (Path(folder) / "f").write_text(f"{who} {n}")
        staged = repository.artifacts.stage(Path(folder), Manifest(Kind.MODEL, "rust"))
        artifact = repository.artifacts.publish(staged, bump=Bump.PATCH, who="A <a@localhost>", why="race")
        print(artifact.tag.version, artifact.tree, flush=True)
"""
    running = []
    for n in range(3):
        (tmp_path / f"w{n}").mkdir()
        command = [sys.executable, "-c", program, str(hub.path), str(tmp_path / f"w{n}"), f"w{n}"]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    said = {}
    for process in running:
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        versions = [line.split() for line in stdout.splitlines()]
        said.update(dict(versions))
    assert sorted(int(version.rpartition(".")[2]) for version in said) == list(range(12))
    for tag in hub.artifacts.list():
        assert hub.artifacts.get(tag).tree == said[str(tag.version)]


_BIG = """
import os, resource, sys, hashlib
from pathlib import Path
from workbench.domain.manifest import Manifest
from workbench.domain.refs import Kind
from workbench.domain.version import Bump
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub
root = Path(sys.argv[1])
(root / "in").mkdir()
with open(root / "in" / "w.bin", "wb") as out:
    for _ in range(2048):
        out.write(os.urandom(1 << 20))
with GitRepository(init_hub(root / "hub.git")) as repository:
    staged = repository.artifacts.stage(root / "in", Manifest(Kind.MODEL, "big"))
    artifact = repository.artifacts.publish(staged, bump=Bump.MINOR, who="A <a@localhost>", why="big")
    path = repository.cache.file(artifact, "w.bin")
    assert path.stat().st_size == 2 << 30
own = int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(own, children)
"""


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_gibibytes_pass_in_under_200_megabytes_of_memory(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _BIG, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    own, children = map(int, done.stdout.split())
    assert own + children < 200_000
