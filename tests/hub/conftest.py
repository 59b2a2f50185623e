"""A hub with real hooks, a clone, and a pusher that speaks the wire protocol itself: no client checks its objects."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from workbench.app.hub_host import install_hub, open_hub
from workbench.app.wiring import open_repository
from workbench.domain.ids import Ulid
from workbench.domain.ledger import Entry
from workbench.domain.run import RunRecord, State
from workbench.hub import runs
from workbench.hub.context import Hub
from workbench.hub.queue import waiting
from workbench.hub.worker import Worker, only_worker
from workbench.ports.store import Repository

ZERO = "0" * 40
WORKBENCH = f"{shlex.quote(sys.executable)} -P -m workbench.cli.entry"
ENV = {
    **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
    "GIT_AUTHOR_NAME": "alice",
    "GIT_AUTHOR_EMAIL": "alice@localhost",
    "GIT_COMMITTER_NAME": "alice",
    "GIT_COMMITTER_EMAIL": "alice@localhost",
    "WORKBENCH_HUB_IDLE_S": "600",  # no process of a hub ends by itself in a test, however slow the machine is
}


@dataclass(frozen=True)
class Pushed:
    accepted: bool
    text: str


class Objects:
    """Objects of a pack, built byte by byte; nothing about them is checked."""

    def __init__(self) -> None:
        self.all: dict[str, tuple[int, bytes]] = {}

    def add(self, kind: str, data: bytes) -> str:
        id = hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)) + data).hexdigest()
        self.all[id] = ({"commit": 1, "tree": 2, "blob": 3, "tag": 4}[kind], data)
        return id

    def blob(self, data: bytes = b"x\n") -> str:
        return self.add("blob", data)

    def tree(self, *entries: tuple[str, bytes, str], sort: bool = True) -> str:
        ordered = sorted(entries, key=lambda e: e[1] + (b"/" if e[0] == "40000" else b"")) if sort else entries
        return self.add("tree", b"".join(m.encode() + b" " + n + b"\0" + bytes.fromhex(i) for m, n, i in ordered))

    def commit(self, tree: str, *parents: str, message: str = "m") -> str:
        who = "alice <alice@localhost> 1700000000 +0000"
        lines = [f"tree {tree}", *(f"parent {p}" for p in parents), f"author {who}", f"committer {who}"]
        return self.add("commit", ("\n".join(lines) + f"\n\n{message}\n").encode())

    def tag(self, target: str, name: str, kind: str = "commit") -> str:
        who = "alice <alice@localhost> 1700000000 +0000"
        return self.add("tag", f"object {target}\ntype {kind}\ntag {name}\ntagger {who}\n\nm\n".encode())

    def pack(self) -> bytes:
        out = bytearray(b"PACK" + (2).to_bytes(4, "big") + len(self.all).to_bytes(4, "big"))
        for kind, data in self.all.values():
            size = len(data)
            byte = kind << 4 | size & 15
            size >>= 4
            while size:
                out.append(byte | 0x80)
                byte, size = size & 127, size >> 7
            out.append(byte)
            out += zlib.compress(data, 1)
        return bytes(out + hashlib.sha1(out).digest())


@dataclass
class HubUnderTest:
    path: Path
    clone: Path
    receive_peak_kib: int = 0  # largest resident size of git-receive-pack and what it started, over all ``send``

    @property
    def env(self) -> dict[str, str]:
        return ENV

    def git(self, *arguments: str, check: bool = True, folder: Path | None = None) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder or self.clone), *arguments], capture_output=True, text=True, env=ENV
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, message: str = "change", **files: str) -> str:
        for name, text in files.items():
            path = self.clone / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def push(self, *arguments: str, pusher: str = "") -> Pushed:
        """As the hub's owner, or as somebody who comes by an entrance."""
        entrance = [f"--receive-pack={WORKBENCH} receive-pack --as {shlex.quote(pusher)}"] if pusher else []
        command = ["git", "-C", str(self.clone), "push", *entrance, "hub", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=ENV)
        return Pushed(done.returncode == 0, " ".join(done.stderr.split()))

    def edit(self, files: Mapping[str, str], message: str = "edit") -> str:
        """Commit files by path in the clone; the commit."""
        for name, text in files.items():
            path = self.clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self.commit(message)

    def tag(self, name: str, target: str = "HEAD") -> str:
        self.git("tag", "-a", name, "-m", name, target)
        return name

    def refs(self) -> dict[str, str]:
        lines = self.git("for-each-ref", "--format=%(refname) %(objectname)", folder=self.path).splitlines()
        return dict(line.split(" ") for line in lines)

    def source_refs(self) -> dict[str, str]:
        return {ref: id for ref, id in self.refs().items() if not ref.startswith("refs/workbench/")}

    def send(self, objects: Objects, updates: Sequence[tuple[str, str, str]]) -> Pushed:
        """Hand a pack to git-receive-pack itself."""
        process = subprocess.Popen(
            [sys.executable, "-IS", "-c", _MEASURED, str(self.path) + ".peak", "git", "receive-pack", str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENV,
        )
        request = b""
        for number, (old, new, ref) in enumerate(updates):
            line = f"{old} {new} {ref}".encode() + (b"\0report-status" if number == 0 else b"")
            request += b"%04x" % (len(line) + 4) + line
        out = process.communicate(request + b"0000" + objects.pack(), timeout=60)[0]
        text = out.decode("utf-8", "replace")
        self.receive_peak_kib = max(self.receive_peak_kib, int(Path(str(self.path) + ".peak").read_text()))
        return Pushed(all(f"ok {ref}" in text for _, _, ref in updates), text.partition("unpack")[2] + text)

    def until(self, holds: Callable[[], object], timeout_s: float = 60.0) -> None:
        until(holds, timeout_s)

    def settle(self) -> None:
        """Until the worker has dealt with every push, and moves no ref any more."""
        with open_repository(self.path) as repository:
            until(lambda: not waiting(repository))

    def process(self, role: str) -> int:
        try:
            return int((self.path / "workbench" / f"{role}.lock").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def kill(self, role: str, with_signal: int = signal.SIGKILL) -> None:
        pid = self.process(role)
        if pid and b"hub_host" in _command_line(pid):
            os.kill(pid, with_signal)
            until(lambda: b"hub_host" not in _command_line(pid))


# A child begins with the peak of the process that forks it, so a small one stands between this test and git.
_MEASURED = """
import resource, sys, subprocess
code = subprocess.run(sys.argv[2:]).returncode
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


def end_all(folder: Path) -> None:
    """No process of a hub below this folder is left, wherever the hub is by now; none that was just being started."""
    prefix = f"{folder}/".encode()

    def are_gone() -> bool:
        lines = {int(path.name): _command_line(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
        found = [pid for pid, line in lines.items() if b"hub_host" in line and b"\0" + prefix in line]
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    until(are_gone)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def until(holds: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait for something that another process does; bounded."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@dataclass
class Desk:
    """The worker's place at a hub, taken by a test: pushes wait until the test works them off itself."""

    under_test: HubUnderTest
    host: Hub

    def work(self) -> int:
        """Deal with all that is pending; how many pushes."""
        return self.worker().handle_all()

    def worker(self) -> Worker:
        return Worker(self.host)

    def cancel(self, run: Ulid) -> RunRecord:
        return runs.cancel_run(self.repository, run)

    def waiting(self) -> list[Entry]:
        return list(waiting(self.repository))

    def runs(self) -> list[RunRecord]:
        """Records of runs that a push was told of, oldest first (not those of the pieces inside them)."""
        found = [runs.show_run(self.repository, run) for run in self.repository.runs.list()]
        return [record for record in reversed(found) if not record.trigger.startswith("run ")]

    def running_jobs(self, run: Ulid) -> list[RunRecord]:
        """Of a push with several pieces of work: those that have begun."""
        inner = runs.show_run(self.repository, run).options.get("runs", {}).values()
        known = [run for run in inner if run in self.repository.runs.list()]
        return [record for run in known if (record := runs.show_run(self.repository, run)).state is State.RUNNING]

    @property
    def repository(self) -> Repository:
        return self.host.repository

    def told(self, pushed: Pushed) -> Ulid:
        """The run that a push was told."""
        match = re.search(r"workbench: run ([0-9A-Z]{26})", pushed.text)
        assert pushed.accepted, pushed.text
        assert match, pushed.text
        return Ulid(match[1])

    def artifacts(self) -> list[str]:
        return [tag.short for tag in self.repository.artifacts.list()]

    def killed_in_the_middle(self, gate: Path) -> None:
        """A worker of its own begins what is pending and is killed at the gate."""
        process = subprocess.Popen([sys.executable, "-c", _WORK, str(self.host.layout.git_dir)])
        until(gate.with_name(gate.name + ".reached").exists)
        process.kill()
        process.wait()


_WORK = f"""
import sys
from pathlib import Path
sys.path[:0] = {[str(Path(runs.__file__).parents[2])]!r}
from workbench.app.hub_host import open_hub
from workbench.app.wiring import open_repository
from workbench.hub.worker import Worker
Worker(open_hub(open_repository(Path(sys.argv[1])))).handle_all()
"""
TOY_TOML = """
format = 1
name = "toy"
use = []

[stage.words]
text = "b a c a"

[[stages]]
name = "words"
command = ["python", "tools/words.py"]
makes = "raw"
code = ["tools/words.py"]

[[stages]]
name = "count"
command = ["python", "tools/count.py"]
reads = ["raw"]
makes = "release"
code = ["tools/count.py"]
"""
_BEGIN = """
import json, os, sys, time
step = json.load(open(sys.argv[-1]))
output, params = step["output"], step["params"]
"""
_END = """
with open(os.path.join(os.path.dirname(output), "result.json"), "w") as file:
    json.dump({"format": 1, "counts": {}, "metrics": {}}, file)
"""
# A text that names a file waits until that file is there: so a test holds a run in its middle.
WORDS_PY = (
    _BEGIN
    + """
gate = params["text"].partition("wait for ")[2]
if gate and not os.path.exists(gate + ".reached"):
    open(gate + ".reached", "w").close()
while gate and not os.path.exists(gate):
    time.sleep(0.01)
if params["text"] == "fail":
    sys.exit("it was asked to fail")
with open(os.path.join(output, "words.txt"), "w") as file:
    file.write("\\n".join(sorted(params["text"].split())))
"""
    + _END
)
COUNT_PY = (
    _BEGIN
    + """
words = open(os.path.join(step["inputs"]["raw"], "words.txt")).read().split()
with open(os.path.join(output, "counts.txt"), "w") as file:
    file.write(str(len(words)))
"""
    + _END
)
TIER_ECHO = """
format = 1
[[micro]]
name = "echo"
run = ["sh", "-c", "cat agents/a.py; echo samples=$SAMPLES"]
[[fast]]
name = "fast"
run = ["true"]
"""
TOY = {"ci/pipelines/toy.toml": TOY_TOML, "tools/words.py": WORDS_PY, "tools/count.py": COUNT_PY}


def toy(text: str = "b a c a") -> dict[str, str]:
    """The files of the toy pipeline, with this text for its first stage. It reaches the gate that the text names."""
    definition = TOY_TOML.replace("b a c a", text)
    gate = text.partition("wait for ")[2]
    if gate:
        definition = definition.replace('makes = "raw"', f'makes = "raw"\nneeds.write = ["{Path(gate).parent}"]')
    return {**TOY, "ci/pipelines/toy.toml": definition}


def make_hub(folder: Path) -> HubUnderTest:
    hub = install_hub(folder / "hub.git")
    clone = folder / "clone"
    subprocess.run(["git", "init", "-q", "-b", "main", str(clone)], check=True, env=ENV)
    made = HubUnderTest(hub, clone)
    made.git("remote", "add", "hub", str(hub))
    return made


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubUnderTest]:
    yield make_hub(tmp_path)
    end_all(tmp_path)


@pytest.fixture
def desk(hub: HubUnderTest) -> Iterator[Desk]:
    """A hub whose worker is the test."""
    with at_desk(hub) as desk:
        yield desk


@contextmanager
def at_desk(hub: HubUnderTest) -> Iterator[Desk]:
    with open_repository(hub.path) as repository:
        host = open_hub(repository)
        host.layout.create()
        with only_worker(host) as mine:
            assert mine
            yield Desk(hub, host)


@pytest.fixture(scope="session")
def toy_origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub and a clone whose toy pipeline has run once, to be copied."""
    folder = tmp_path_factory.mktemp("toy")
    hub = make_hub(folder)
    hub.edit({**toy(), "ci/tiers.toml": TIER_ECHO})
    with at_desk(hub) as desk:
        assert hub.push("main").accepted
        assert desk.work() == 1
    end_all(folder)
    return folder


@pytest.fixture
def toy_desk(toy_origin: Path, tmp_path: Path) -> Iterator[Desk]:
    """A desk of its own where the toy pipeline has run once."""
    for name in ("hub.git", "clone"):
        shutil.copytree(toy_origin / name, tmp_path / name, ignore=shutil.ignore_patterns("*.sock", "*.wake"))
    hub = HubUnderTest(tmp_path / "hub.git", tmp_path / "clone")
    hub.git("remote", "set-url", "hub", str(hub.path))
    with at_desk(hub) as desk:
        yield desk
    end_all(tmp_path)


@pytest.fixture(scope="session")
def toy_files() -> Callable[..., dict[str, str]]:
    return toy


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        ENV["WORKBENCH_CACHE_DIR"] = os.environ["WORKBENCH_CACHE_DIR"]
        yield


@pytest.fixture(scope="module")
def refusing_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubUnderTest]:
    folder = tmp_path_factory.mktemp("shared")
    made = make_hub(folder)
    made.commit("first", README="hello\n")
    made.git("tag", "-a", "v1.0.0", "-m", "one")
    assert made.push("-o", "ci.skip", "main", "v1.0.0").accepted
    made.settle()
    yield made
    end_all(folder)


@pytest.fixture
def shared_hub(refusing_hub: HubUnderTest) -> HubUnderTest:
    """For pushes that are refused: they change nothing, so one hub serves them all. It has a main, whose only commit
    has no parent, and a v1.0.0; the clone has these and no other, whatever the test before did there."""
    stand = refusing_hub.source_refs()
    refusing_hub.git("checkout", "-q", "--force", "--detach", stand["refs/heads/main"])
    for line in refusing_hub.git("for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags").splitlines():
        refusing_hub.git("update-ref", "-d", line)
    for ref, id in stand.items():
        refusing_hub.git("update-ref", ref, id)
    refusing_hub.git("checkout", "-q", "main")
    return refusing_hub


@pytest.fixture
def objects() -> Objects:
    return Objects()
