"""Death, a full disk and a broken disk at every system call of a ledger change: afterwards all is old, or all is new.

Two lanes, because two kinds of process take part: the git children that move refs (started through a wrapper that puts
strace before them), and our own process (strace attaches when everything is imported). strace counts calls by name, so
a point is (call, number).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from workbench.domain.errors import WorkbenchError
from workbench.domain.ids import ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.store.git import locks, refs
from workbench.store.git.repository import GitRepository
from workbench.store.memory.repository import CountingClock

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

MAIN, ACTIVE, TAG = "refs/heads/main", "refs/workbench/channels/active", "refs/tags/v2.0.0"
FAULTS = ("signal=KILL", "error=ENOSPC", "error=EIO")
# Calls that reach the disk or a lock: an error of these is the world's; of the others (mmap, brk) it is another story.
ON_DISK = frozenset(
    {"openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "link", "linkat", "unlink"}
    | {"unlinkat", "mkdir", "mkdirat", "rmdir", "ftruncate", "fchmod", "chmod", "flock", "utimensat", "close"}
)


EVERY_OR_SAMPLED = pytest.mark.parametrize(
    "stride",
    [pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(3600)], id="every"), pytest.param(53, id="sampled")],
)


@dataclass(frozen=True)
class Point:
    fault: str
    call: str
    number: int

    @property
    def inject(self) -> str:
        return f"--inject={self.call}:{self.fault}:when={self.number}"


def points(counted: Counter[str]) -> Iterator[Point]:
    for fault in FAULTS:
        for call, number in sorted(counted.items()):
            if fault == "signal=KILL" or call in ON_DISK:
                yield from (Point(fault, call, k) for k in range(1, number + 1))


def counted(trace: Path) -> Counter[str]:
    """How often each call stands in a trace; what strace itself says (signals, exits) is left out."""
    calls: Counter[str] = Counter()
    for line in trace.read_text(errors="replace").splitlines():
        name = line.split("(", 1)[0]
        if "(" in line and name.isidentifier():
            calls[name] += 1
    return calls


@pytest.fixture
def template(hub: Path, commits, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub with one entry; the next one moves four refs, one of them new."""
    monkeypatch.setattr(refs, "ANSWER_S", 1.0)  # an answer that git could not write never comes
    with GitRepository(hub, clock=CountingClock()) as repository:
        one, _ = commits(repository, 2)
        moves = [RefMove.named(MAIN, new=one), RefMove.named(ACTIVE, new=one)]
        repository.ledger.change(Action.PIN, moves, who="Ada", why="first", files={"ab/ab": b"1"})
    return hub


def change(repository: GitRepository) -> None:
    one = repository.refs.get(MAIN)
    two = repository.objects.add_commit(
        repository.objects.add_tree(None, {"file": b"1\n"}),
        parents=[],
        message="number 1",
        who="Ada <ada@example.org>",
        time_ms=1_700_000_000_001,
    )
    moves = [RefMove.named(MAIN, one, two), RefMove.named(ACTIVE, one, two), RefMove.named(TAG, new=two)]
    repository.ledger.change(Action.PIN, moves, who="Ada", why="second", files={"ab/ab": None, "cd/cd": b"2"})


def state_after_recovery(hub: Path, old: dict[str, ObjectId]) -> str:
    """``old``, ``new`` or what is mixed; the repository must be clean."""
    with GitRepository(hub, clock=CountingClock()) as repository:
        repository.ledger.recover()
        assert locks.lock_files(hub) == []
        now = dict(repository.refs.all())
        if now == old:
            # What was not made can be made now.
            change(repository)
            now = dict(repository.refs.all())
            verdict = "old"
        else:
            verdict = "new"
        two = now.get(MAIN)
        cache = [entry.path for entry in repository.objects.walk(now["refs/workbench/cache"])]
        whole = two not in (None, old[MAIN]) and now.get(ACTIVE) == now.get(TAG) == two and cache == ["cd/cd"]
        if not whole or repository.ledger.head().counter != 2:
            return f"mixed: {now}"
    done = subprocess.run(["git", "fsck", "--strict", "--no-dangling"], cwd=hub, capture_output=True, text=True)
    return verdict if done.returncode == 0 and not done.stderr.strip() else f"fsck: {done.stdout}{done.stderr}"


# --- lane 1: the git children -----------------------------------------------------------------------------------------

WRAPPER = """#!/bin/sh
case "$*" in
  *update-ref*)
    if mkdir "{folder}/first" 2>/dev/null; then role=projection; else role=point; fi
    if [ "$role" = "{role}" ] && mkdir "{folder}/done" 2>/dev/null; then
      exec {strace} -D -qq -o {trace} {inject} {git} "$@"
    fi ;;
esac
exec {git} "$@"
"""


def children_lane(template: Path, tmp_path: Path, monkeypatch, role: str, point: Point | None) -> tuple[str, Path]:
    """One change in this process, with strace before one of its two ``git update-ref``."""
    place = tmp_path / "lane"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    hub = shutil.copytree(template, place / "hub.git")
    wrapper = place / "git"
    wrapper.write_text(
        WRAPPER.format(
            folder=place,
            role=role,
            strace=shutil.which("strace"),
            git=shutil.which("git"),
            trace=place / "trace",
            inject=point.inject if point else "",
        )
    )
    wrapper.chmod(0o755)
    with GitRepository(hub, clock=CountingClock()) as repository:
        old = dict(repository.refs.all())
        with monkeypatch.context() as patched:
            patched.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
            repository.refs.close()  # the children of the change start through the wrapper
            try:
                change(repository)
                ended = "done"
            except WorkbenchError:
                ended = "failed"
    verdict = state_after_recovery(hub, old)
    if ended == "done" and verdict != "new":
        verdict = f"acknowledged, but {verdict}"
    return verdict, place / "trace"


@pytest.mark.parametrize("role", ["projection", "point"])
@EVERY_OR_SAMPLED
def test_a_fault_in_a_git_child_leaves_all_old_or_all_new(template, tmp_path, monkeypatch, role, stride):
    verdict, trace = children_lane(template, tmp_path, monkeypatch, role, None)
    assert verdict == "new"
    verdicts = Counter[str]()
    for point in list(points(counted(trace)))[::stride]:
        verdict, _ = children_lane(template, tmp_path, monkeypatch, role, point)
        assert verdict in ("old", "new"), (point, verdict)
        verdicts[f"{point.fault} {verdict}"] += 1
    print(f"\n{role}: {dict(sorted(verdicts.items()))}")


# --- lane 2: our own process ------------------------------------------------------------------------------------------

DRIVER = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("crash", sys.argv[1])
crash = importlib.util.module_from_spec(spec)
sys.modules["crash"] = crash
spec.loader.exec_module(crash)
with crash.GitRepository(pathlib.Path(sys.argv[2]), clock=crash.CountingClock()) as repository:
    repository.objects.add_blob(b"warm")
    repository.ledger.history()
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        crash.change(repository)
        print("done", flush=True)
    except crash.WorkbenchError:
        print("failed", flush=True)
    sys.stdin.readline()
"""


def own_lane(template: Path, tmp_path: Path, point: Point | None) -> tuple[str, Path]:
    place = tmp_path / "lane"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    hub = shutil.copytree(template, place / "hub.git")
    with GitRepository(hub) as repository:
        old = dict(repository.refs.all())
    command = [sys.executable, "-c", DRIVER, __file__, os.fspath(hub)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
        attach = ["strace", "-p", str(driver.pid), "-o", os.fspath(place / "trace"), *([point.inject] if point else [])]
        with subprocess.Popen(attach, stderr=pipe, text=True) as tracer:
            assert tracer.stderr is not None
            assert "attached" in tracer.stderr.readline()
            driver.stdin.write("go\n")
            driver.stdin.flush()
            ended = driver.stdout.readline().strip()
            tracer.terminate()
        driver.communicate("end\n" if driver.poll() is None and ended else None)
    until_nobody_works_in(hub)
    verdict = state_after_recovery(hub, old)
    if ended == "done" and verdict != "new":
        verdict = f"acknowledged, but {verdict}"
    return verdict, place / "trace"


def until_nobody_works_in(hub: Path) -> None:
    """The git children of a killed process end by themselves, and take their locks along; that is not in an instant."""
    deadline = time.monotonic() + 60
    while any(os.fspath(hub) in word for p in psutil.process_iter(["cmdline"]) for word in p.info["cmdline"] or []):
        assert time.monotonic() < deadline, "a program does not end"
        time.sleep(0.005)


@EVERY_OR_SAMPLED
def test_a_fault_in_our_own_process_leaves_all_old_or_all_new(template, tmp_path, stride):
    verdict, trace = own_lane(template, tmp_path, None)
    assert verdict == "new"
    verdicts = Counter[str]()
    for point in list(points(counted(trace)))[::stride]:
        verdict, _ = own_lane(template, tmp_path, point)
        assert verdict in ("old", "new"), (point, verdict)
        verdicts[f"{point.fault} {verdict}"] += 1
    print(f"\nown process: {dict(sorted(verdicts.items()))}")


@pytest.mark.parametrize("role", ["projection", "point"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_answer_that_git_could_not_write_is_not_waited_for(template, tmp_path, monkeypatch, role, number):
    verdict, _ = children_lane(template, tmp_path, monkeypatch, role, Point("error=ENOSPC", "write", number))
    assert verdict in ("old", "new")
