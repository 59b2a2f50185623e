"""A push killed, or its disk full or broken, at each system call of each program that takes part: all refs, or none.

Each push moves a branch, makes another and tags a version. strace stands before one program (a role), counts its calls,
and then strikes at one of them after the other. By default some points are tried, with ``--long`` every one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from workbench.store.git.repository import GitRepository

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: apt-get install strace")

QUIET_LOOKS = 20
FAULTS = ("signal=KILL", "error=ENOSPC", "error=EIO")
# Calls that reach the disk or a lock: an error of these is the world's; of the others (mmap, brk) it is another story.
# A close that fails closes all the same; strace's does not, and would leave a lock with a process that goes on.
ON_DISK = frozenset(
    {"openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "link", "linkat", "unlink"}
    | {"unlinkat", "mkdir", "mkdirat", "rmdir", "ftruncate", "fchmod", "chmod", "flock", "utimensat"}
)
EVERY_OR_SAMPLED = pytest.mark.parametrize(
    "stride",
    [pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(3600)], id="every"), pytest.param(61, id="sampled")],
)

# Before git's subcommand ROLE stands strace; every other git runs as it is.
GIT = """#!/bin/sh
for word in "$@"; do
  [ "$word" = {role} ] && exec {strace} -D -qqq -o "$TRACE" $INJECT {git} "$@"
done
exec {git} "$@"
"""
HOOK = """#!/bin/sh
[ -n "$TRACE" ] || exec {real}
exec {strace} -D -qqq -o "$TRACE" $INJECT {real}
"""
# strace has attached to the policy process when the hook goes on. It ends with its hook, or with the policy process.
ATTACH = """#!/bin/sh
[ -n "$TRACE" ] || exec {real}
policy=$(cat workbench/policy.lock)
{strace} -f -qqq -o "$TRACE" $INJECT -p "$policy" >/dev/null 2>&1 &
while grep -q '^TracerPid:.0$' /proc/"$policy"/status 2>/dev/null && kill -0 $! 2>/dev/null; do :; done
{real}
code=$?
kill $! 2>/dev/null
exit $code
"""


HOOKS = ("pre-receive", "proc-receive", "policy")
ROLES = (*HOOKS, "receive-pack", "index-pack", "rev-list", "push", "pack-objects")


@dataclass(frozen=True)
class Point:
    fault: str
    call: str
    number: int

    @property
    def inject(self) -> str:
        return f"--inject={self.call}:{self.fault}:when={self.number}"


def points(calls: Counter[str]) -> Iterator[Point]:
    for fault in FAULTS:
        for call, number in sorted(calls.items()):
            if fault == "signal=KILL" or call in ON_DISK:
                yield from (Point(fault, call, k) for k in range(1, number + 1))


def counted(trace: Path) -> Counter[str]:
    """How often each call stands in a trace, in the thread that made the most of it."""
    by_thread: dict[str, Counter[str]] = {}
    for line in trace.read_text(errors="replace").splitlines():
        first, _, rest = line.partition(" ")
        thread, line = (first, rest.strip()) if first.isdigit() else ("", line)
        name = line.split("(", 1)[0]
        if "(" in line and name.isidentifier():
            by_thread.setdefault(thread, Counter())[name] += 1
    every = set().union(*by_thread.values())
    return Counter({name: max(counter[name] for counter in by_thread.values()) for name in every})


@dataclass
class Lane:
    """Pushes into one hub, one after the other; each moves three refs that are its own."""

    hub: object
    tmp_path: Path
    role: str
    number: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.trace = self.tmp_path / "trace"
        self.real = {"strace": shutil.which("strace"), "git": shutil.which("git")}
        self.programs = self.tmp_path / "programs"
        self.programs.mkdir()
        hooks = self.hub.path / "hooks"  # type: ignore[attr-defined]
        if self.role in HOOKS:
            hook = hooks / ("proc-receive" if self.role == "policy" else self.role)
            hook.rename(real := hooks / f"{hook.name}.real")
            hook.write_text((ATTACH if self.role == "policy" else HOOK).format(real=real, **self.real))
            hook.chmod(0o755)
        else:
            (self.programs / "git").write_text(GIT.format(role=self.role, **self.real))
            (self.programs / "git").chmod(0o755)

    def next_push(self) -> list[str]:
        """Commit, tag; the refspecs."""
        self.number += 1
        self.hub.commit(f"number {self.number}", note=f"{self.number}\n")  # type: ignore[attr-defined]
        tag = f"v1.{self.number}.0"
        self.hub.git("tag", "-a", tag, "-m", "one")  # type: ignore[attr-defined]
        return ["main", f"main:refs/heads/topic-{self.number}", tag]

    def push(self, refspecs: list[str], point: Point | None) -> tuple[bool, str]:
        """With strace at the role; whether git called it done, and what it said."""
        self.trace.unlink(missing_ok=True)
        hub, client = self.hub.path, self.hub.clone  # type: ignore[attr-defined]
        environment = {**_environment(), "TRACE": str(self.trace), "INJECT": point.inject if point else ""}
        command = ["git", "-C", str(client), "push", "-o", "ci.skip"]
        if self.role in HOOKS:
            pass
        elif self.role in ("push", "pack-objects"):
            environment["GIT_EXEC_PATH"] = str(self.programs)
            environment["PATH"] = f"{self.programs}{os.pathsep}{environment['PATH']}"
            command = [
                "git",
                "-C",
                str(client),
                "push",
                "-o",
                "ci.skip",
                f"--receive-pack={self.real['git']} receive-pack",
            ]
        else:
            program = f"env GIT_EXEC_PATH={self.programs} {self.programs}/git receive-pack"
            command.append(f"--receive-pack={program}")
        done = subprocess.run([*command, str(hub), *refspecs], capture_output=True, text=True, env=environment)
        return done.returncode == 0, done.stderr

    def settled(self) -> None:
        """Whoever was left alone by the killed one has come to its end."""
        hub = self.hub.path  # type: ignore[attr-defined]
        deadline = time.monotonic() + 60
        policy, worker = self.hub.process("policy"), self.hub.process("worker")  # type: ignore[attr-defined]
        quiet = 0
        while quiet < QUIET_LOOKS:  # a connection of a killed hook may not have been taken up yet
            quiet = 0 if _is_conversing(policy) or _working_in(hub, policy, worker) else quiet + 1
            if time.monotonic() > deadline - 50:
                _end_tracer(policy)
            assert time.monotonic() < deadline, "a program of the push does not end"
            time.sleep(0.005)
        _end_tracer(policy)

    def strike(self, point: Point) -> None:
        """One push under one fault; then the same again without it must make it whole."""
        before, refspecs = self.hub.source_refs(), self.next_push()  # type: ignore[attr-defined]
        acknowledged, said = self.push(refspecs, point)
        self.settled()
        with GitRepository(self.hub.path):  # type: ignore[attr-defined]
            pass  # opening it finishes what was cut off
        tip = self.hub.git("rev-parse", "HEAD")  # type: ignore[attr-defined]
        tag = self.hub.git("rev-parse", refspecs[2])  # type: ignore[attr-defined]
        new = {
            **before,
            "refs/heads/main": tip,
            f"refs/heads/topic-{self.number}": tip,
            f"refs/tags/{refspecs[2]}": tag,
        }
        now = self.hub.source_refs()  # type: ignore[attr-defined]
        assert now in (before, new), (point, said, set(now.items()) ^ set(before.items()))
        assert now == new or not acknowledged, (point, said)
        self.verdicts[f"{point.fault} {'new' if now == new else 'old'}"] += 1
        # Nothing to push and options to send: git may die of SIGPIPE then, with any server, so none are given.
        again = self.hub.push(*([] if now == new else ["-o", "ci.skip"]), *refspecs)  # type: ignore[attr-defined]
        assert again.accepted, (point, said, again.text)
        assert self.hub.source_refs() == new, point  # type: ignore[attr-defined]


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "WORKBENCH_HUB_IDLE_S": "60"}


def _end_tracer(pid: int) -> None:
    """A strace that killed one thread may wait for the others for ever, and keep them from ending."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        tracer = int(next(line for line in lines if line.startswith("TracerPid:")).split()[1])
        if tracer:
            os.kill(tracer, signal.SIGKILL)
    except OSError:
        return


def _is_conversing(policy: int) -> bool:
    """The policy process has a socket open for each hook, also for one that was killed after it had asked, and one at
    which it waits for them."""
    sockets = 0
    try:
        for fd in os.listdir(f"/proc/{policy}/fd"):
            with suppress(FileNotFoundError):
                sockets += os.readlink(f"/proc/{policy}/fd/{fd}").startswith("socket:")
    except OSError:
        return False
    return sockets > 1


def _working_in(hub: Path, *but: int) -> list[int]:
    """Programs of a push, and hooks, that stand in this hub."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in but:
            try:
                if os.path.realpath(f"/proc/{name}/cwd") != str(hub) or os.readlink(f"/proc/{name}/exe") == "":
                    continue
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(b"receive" in word or b"index-pack" in word or b"rev-list" in word for word in words):
                found.append(int(name))
    return found


@pytest.mark.parametrize("role", ROLES)
@EVERY_OR_SAMPLED
def test_a_push_that_is_cut_off_moves_all_of_its_refs_or_none(hub, tmp_path: Path, role: str, stride: int) -> None:
    hub.commit("first", README="hello\n")
    assert hub.push("-o", "ci.skip", "main").accepted
    lane = Lane(hub, tmp_path, role)
    done, said = lane.push(lane.next_push(), None)
    assert done, said
    calls = counted(lane.trace)
    assert sum(calls.values()) > 20, f"strace saw nothing of {role}"
    for number, point in enumerate(list(points(calls))[::stride]):
        lane.strike(point)
        if number % 50 == 0:
            _fsck(hub.path)
    _fsck(hub.path)
    print(f"\n{role}: {sum(calls.values())} calls, {dict(sorted(lane.verdicts.items()))}", file=sys.stderr)


def _fsck(hub: Path) -> None:
    """Beside the living worker: an object that it adds while fsck looks can be seen before what it names."""
    said = ""
    for _ in range(5):
        command = ["git", "--git-dir", str(hub), "fsck", "--strict", "--no-dangling"]
        done = subprocess.run(command, capture_output=True, text=True)
        said = done.stdout + done.stderr
        if done.returncode == 0 and not any(word in said for word in ("corrupt", "missing", "broken")):
            return
    raise AssertionError(said)
