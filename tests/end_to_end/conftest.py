"""One small pipeline per session of tests: real stages over Rust that a seeded generator writes. No network."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TEXT = """alpha beta gamma delta sigma queue stack node edge graph cache block chunk frame token index value entry slot
page shard batch layer field point vector matrix buffer reader writer parser lexer scope guard lock mutex timer clock
signal event state phase round total limit bound count width height depth offset cursor range span window"""
WORDS = re.findall(r"\w+", TEXT)


def rust_file(number: int) -> str:
    """One self-contained Rust file; the same number gives the same text."""
    pick = random.Random(number)
    name = lambda: f"{pick.choice(WORDS)}_{pick.choice(WORDS)}"  # noqa: E731
    camel = lambda: "".join(pick.choice(WORDS).capitalize() for _ in range(3))  # noqa: E731
    parts = [f"//! {pick.choice(WORDS).capitalize()} of the {name()}.\n"]
    for _ in range(pick.randint(2, 5)):
        kind, fields = camel(), sorted({name() for _ in range(pick.randint(2, 5))})
        parts.append(f"/// A {kind}.\npub struct {kind} {{\n" + "".join(f"    pub {f}: u64,\n" for f in fields) + "}\n")
        methods = []
        for _ in range(pick.randint(1, 4)):
            a, b, c = pick.choice(fields), name(), pick.randint(2, 99)
            operator = pick.choice(["+", "*", "^", "|", "&"])
            methods.append(
                f"    pub fn {name()}_{c}(&self, {b}: u64) -> u64 {{\n"
                f"        let {b}_{c} = self.{a} {operator} {b};\n"
                f"        if {b}_{c} > {pick.randint(1, 500)} {{\n            return {b}_{c} - {c};\n        }}\n"
                f"        {b}_{c}\n    }}\n"
            )
        parts.append(f"impl {kind} {{\n" + "\n".join(methods) + "}\n")
    for _ in range(pick.randint(1, 4)):
        a, b = name(), pick.randint(2, 9)
        parts.append(
            f"pub fn {a}_{pick.randint(0, 999)}(items: &[u64]) -> u64 {{\n"
            f"    let mut {a} = {b};\n    for item in items {{\n        {a} += item * {b};\n    }}\n    {a}\n}}\n"
        )
    return "\n".join(parts)


MIT = (  # in full: a text that cannot be identified contradicts the manifest
    "MIT License\n\nCopyright (c) 2024 Somebody\n\nPermission is hereby granted, free of charge, to any person "
    'obtaining a copy of this software and associated documentation files (the "Software"), to deal in the '
    "Software without restriction, including without limitation the rights to use, copy, modify, merge, publish, "
    "distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is "
    "furnished to do so, subject to the following conditions:\n\nThe above copyright notice and this permission "
    "notice shall be included in all copies or substantial portions of the Software.\n\nTHE SOFTWARE IS PROVIDED "
    '"AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF '
    "MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR "
    "COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, "
    "TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN "
    "THE SOFTWARE.\n"
)


def write_corpus(folder: Path, files: int = 160) -> None:
    source = folder / "src"
    source.mkdir(parents=True)
    (folder / "Cargo.toml").write_text('[package]\nname = "corpus"\nversion = "1.0.0"\nlicense = "MIT"\n')
    (folder / "LICENSE").write_text(MIT)
    for number in range(files):
        (source / f"file_{number}.rs").write_text(rust_file(number))


PIPELINE = """format = 1
name = "rust"
dial = 1
seed = 0

[stage.crawl]
sources = [{{ kind = "path", name = "corpus", version = "1.0.0", location = "{corpus}" }}]

[stage.dataset]
validation = 0.1
test = 0.1
"""


@dataclass(frozen=True)
class Workspace:
    """A clone and its hub, driven by the commands alone."""

    clone: Path
    hub: Path
    environment: dict[str, str]

    def run(self, *arguments: str, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "workbench.cli.entry", *arguments]
        done = subprocess.run(  # type: ignore[call-overload]
            command, cwd=self.clone, env=self.environment, capture_output=True, text=True, **options
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str) -> object:
        return json.loads(self.run(*arguments, "--json").stdout)

    def git(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(["git", *arguments], cwd=self.clone, env=self.environment, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"git {arguments}: {done.stdout}{done.stderr}"
        return done

    def trees(self) -> dict[str, str]:
        """Artifact -> tree id."""
        listing = self.json("log", "-n", "1000")
        return {a["artifact"]: a["tree"] for a in listing["artifacts"]}  # type: ignore[index,call-overload]


def make_workspace(folder: Path, files: int = 160) -> Workspace:
    """A workspace whose pipeline reads a small local corpus; nothing has run yet."""
    write_corpus(folder / "corpus", files)
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "WORKBENCH_"))}
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in _WHO.items()}
    environment = keep | who | {"WORKBENCH_CACHE_DIR": str(folder / "cache"), "PYTHONWARNINGS": "default"}
    workspace = Workspace(folder / "agent", folder / "agent.git", environment)
    init = [sys.executable, "-m", "workbench.cli.entry", "init", "agent"]
    subprocess.run(init, cwd=folder, env=environment, check=True, capture_output=True)
    (workspace.clone / "ci/pipelines/rust.toml").write_text(PIPELINE.format(corpus=folder / "corpus"))
    workspace.git("commit", "--quiet", "--all", "--message", "A small corpus")
    return workspace


_WHO = {"NAME": "Ada", "EMAIL": "ada@example.com"}


def _kill_all_of(hub: Path) -> int:
    """SIGKILL for every process that names the hub: commands, worker, policy, hooks, stages. How many."""
    killed = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if os.fsencode(hub) not in (entry / "cmdline").read_bytes():
                continue
            os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue
        killed += 1
    return killed


@pytest.fixture(scope="session")
def new_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Workspace]]:
    """Makes workspaces; their workers are ended with the session."""
    made: list[Workspace] = []

    def make(name: str) -> Workspace:
        made.append(make_workspace(tmp_path_factory.mktemp(name)))
        return made[-1]

    yield make
    for workspace in made:
        _kill_all_of(workspace.hub)


@pytest.fixture(scope="session")
def built(new_workspace: Callable[[str], Workspace]) -> Workspace:
    """The whole pipeline, run by one push that waits. Tests that share it only read, or add."""
    workspace = new_workspace("built")
    pushed = workspace.git("push", "-o", "run.wait=900", "hub", "main")
    assert "succeeded" in pushed.stderr, pushed.stderr
    return workspace


@pytest.fixture
def kill_all_of() -> Callable[[Path], int]:
    return _kill_all_of
