"""Looking at hostile things runs nothing: a branch, a version and a bundle full of code, browsed in every way there is.

Each piece of code that they hold leaves a mark in a folder when it runs. A new command must be told to this file: it is
browsed (``BROWSED``), or it does something else than looking (``ACTS``). So must a new route's parameter.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main
from fastapi.testclient import TestClient

from workbench.app import wiring
from workbench.app.agents import pin_release
from workbench.cli.commands import app
from workbench.domain.ids import ObjectId
from workbench.domain.manifest import Manifest
from workbench.domain.refs import MAIN, Kind
from workbench.domain.version import Bump
from workbench.rest.versions import create_app
from workbench.state.document import PinnedRelease, StateDocument
from workbench.store.git.repository import GitRepository

pytestmark = pytest.mark.xdist_group("looking")
WHO = "Eve <eve@example.com>"

PYTHON = "import pathlib, os\npathlib.Path({marks!r}, {name!r}).touch()\nwhile True: pass\n"
FILES = {
    "agents/__init__.py": PYTHON,
    "agents/evil.py": PYTHON,
    "agents/runner.py": PYTHON,
    "conftest.py": PYTHON,
    "sitecustomize.py": PYTHON,
    "usercustomize.py": PYTHON,
    "setup.py": PYTHON,
    "json.py": PYTHON,
    "workbench/__init__.py": PYTHON,
    "tests/conftest.py": PYTHON,
    "tests/micro/test_evil.py": PYTHON,
    "hooks/pre-receive": "#!/bin/sh\ntouch {marks}/hook\n",
    "hooks/post-checkout": "#!/bin/sh\ntouch {marks}/checkout\n",
    "tools/evil": "#!/bin/sh\ntouch {marks}/tool\n",
    ".gitattributes": "* filter=evil diff=evil merge=evil ident\n",
    ".gitmodules": '[submodule "x"]\n\tpath = x\n\turl = ext::sh -c touch% {marks}/url\n\tupdate = !touch {marks}/up\n',
    ".git-blame-ignore-revs": "x\n",
    ".mailmap": "\x1b[2J <eve@example.com>\n",
    "ci/tiers.toml": 'format = 1\n[[micro]]\nname = "evil"\nrun = ["touch", "{marks}/tier"]\nwall_s = 5\n',
    "ci/paths.toml": "format = 1\n[[rule]]\nwho = '*'\n",
    "ci/pipelines/evil.toml": (
        'format = 1\nname = "evil"\nuse = []\n[[stages]]\nname = "evil"\ncommand = ["sh", "tools/evil"]\n'
        'code = ["tools/evil"]\nmakes = "metrics"\n'
    ),
    "ci/pipelines/tool.toml": (
        'format = 1\nname = "tool"\nuse = []\n[[stages]]\nname = "tool"\ncommand = ["sh"]\n'
        'tools = ["{marks}/../tool"]\nmakes = "metrics"\n'
    ),
    "ci/pipelines/toml.toml": "format = 1\n[" + ".".join(f"k{n}" for n in range(3000)) + "]\n",
    "state/active.state.json": "[" * 5000,
    "\x1b]0;owned\x07.txt": "x",
}
LINKS = {"agents/link.py": "/etc/passwd", "ci/link": "../../..", "state/staging.state.json": "/dev/zero", "loop": "."}
REFUSED = {".gitattributes", ".gitmodules", "\x1b]0;owned\x07.txt", *LINKS}  # by what judges a push or a bundle
MANIFESTS = {
    "v1.0.0": b'{"format": 1, "kind": "release", "name": "odd", "files": [{"path": "../x", "size": true}]}',
    "v1.0.1": b"[" * 20_000,
    "v1.0.2": b'{"format": 1e999, "kind": "\\ud800"}',
    "v1.0.3": b'\xef\xbb\xbf{"format": 1, "format": 2, "counts": null}',
    "v1.0.4": b'{"format": 1, "kind": "release", "name": "odd", "seed": ' + b"9" * 4000 + b"}",
    "v1.0.5": b'"\x1b]0;owned\x07"',
}


PLANTED = ("heads/topic", "heads/v7.7.7", "heads/active", "heads/release", "tags/v9.9.8", "workbench/channels/canary")


@dataclass(frozen=True)
class Scene:
    hub: Path
    clone: Path  # its HEAD is the hostile branch; nothing is checked out
    bundle: Path  # of what the rules let pass, and
    refused: Path  # of what they do not
    marks: Path
    out: Path
    environment: Mapping[str, str]
    commit: str  # hostile
    incoming: str

    def run(self, words: Sequence[str], where: Path) -> tuple[subprocess.CompletedProcess[str], float]:
        """Run a command there; what it said, and the processor time of it and its children."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "workbench.cli.entry", *words],
            cwd=where,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def ran(self) -> list[str]:
        return sorted(path.name for path in self.marks.iterdir())


def git(folder: Path, *words: str, given: bytes = b"", env: Mapping[str, str]) -> str:
    done = subprocess.run(["git", *words], cwd=folder, input=given, capture_output=True, env=dict(env))
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def plant(
    hub: Path, marks: Path, env: Mapping[str, str], changes: Mapping[str, bytes] | None = None, *, lawful: bool = False
) -> str:
    """A commit of all hostile files and links, written past every rule; with ``changes``, and ``lawful`` without what
    the rules refuse."""
    index = marks.parent / "index"
    index.unlink(missing_ok=True)
    contents = {path: told(text, path, marks) for path, text in FILES.items()} | dict(changes or {})
    modes = dict.fromkeys(contents, "100644") | dict.fromkeys(LINKS, "120000")
    contents |= {path: target.encode() for path, target in LINKS.items()}
    lines = b""
    for path in sorted(contents.keys() - (REFUSED if lawful else set())):
        blob = git(hub, "hash-object", "-w", "--stdin", given=contents[path], env=env)
        lines += f"{modes[path]} {blob}\t{path}\0".encode()
    git(hub, "update-index", "-z", "--index-info", given=lines, env={**env, "GIT_INDEX_FILE": str(index)})
    tree = git(hub, "write-tree", env={**env, "GIT_INDEX_FILE": str(index)})
    return git(hub, "commit-tree", tree, "-m", "\x1b[31mEvil\x07 \x9b31m words", env=env)


def told(text: str, path: str, marks: Path) -> bytes:
    name = repr(path.replace("/", "_"))
    return text.replace("{marks!r}", repr(str(marks))).replace("{name!r}", name).replace("{marks}", str(marks)).encode()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if missing := wiring.sandbox().probe():
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("looking")
    marks, home, out = folder / "marks", folder / "home", folder / "out"
    for each in (marks, home, out):
        each.mkdir()
    touch = f"touch {marks}"
    (home / ".gitconfig").write_text(  # what a person may have of their own, for git-lfs or to see differences
        f'[filter "evil"]\nclean = {touch}/clean\nsmudge = {touch}/smudge\nprocess = {touch}/process\n'
        f'[diff "evil"]\ntextconv = {touch}/textconv\ncommand = {touch}/diff\n[merge "evil"]\ndriver = {touch}/merge\n'
        "[user]\nname = Ada\nemail = ada@example.com\n[protocol]\nallow = always\n"
    )
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "WORKBENCH_"))}
    env = keep | {"HOME": str(home), "WORKBENCH_CACHE_DIR": str(folder / "cache"), "PYTHONWARNINGS": "default"}
    for name in ("ours", "theirs"):
        subprocess.run([sys.executable, "-m", "workbench.cli.entry", "init", name], cwd=folder, env=env, check=True)
    hub, clone = folder / "ours.git", folder / "looking"
    publish(hub, out, "ours")
    commit = plant(hub, marks, env)
    for ref in PLANTED:
        git(hub, "update-ref", f"refs/{ref}", commit, env=env)
    git(hub, "tag", "-a", "-m", "\x1b[31mevil", "v9.9.9", commit, env=env)
    for version, manifest in MANIFESTS.items():
        blob = git(hub, "hash-object", "-w", "--stdin", given=manifest, env=env)
        tree = git(hub, "mktree", given=f"100644 blob {blob}\tmanifest.json\n".encode(), env=env)
        odd = git(hub, "commit-tree", tree, "-m", "odd", env=env)
        git(hub, "tag", "-a", "-m", "odd", f"release/odd/{version}", odd, env=env)
    git(folder, "clone", "--quiet", "--no-checkout", "--branch", "topic", str(hub), str(clone), env=env)
    git(clone, "remote", "rename", "origin", "hub", env=env)
    bundle, refused = folder / "evil.bundle", folder / "refused.bundle"
    carry_away(folder / "theirs.git", marks, env, bundle, refused, out)
    made = Scene(hub, clone, bundle, refused, marks, out, env, commit, "")
    taken, _ = made.run(["unbundle", str(bundle), "--json"], hub)
    assert taken.returncode == 0, taken.stderr
    yield Scene(**{**made.__dict__, "incoming": json.loads(taken.stdout)["incoming"]})
    subprocess.run([sys.executable, "-c", END, str(hub)], check=True)


END = """
import os, signal, sys
for entry in os.listdir('/proc'):
    try:
        line = open(f'/proc/{entry}/cmdline', 'rb').read() if entry.isdigit() else b''
    except OSError:
        continue
    if sys.argv[1].encode() in line and int(entry) != os.getpid():
        os.kill(int(entry), signal.SIGKILL)
"""


def publish(hub: Path, out: Path, name: str) -> PinnedRelease:
    """A release that can be shown and pinned; in ``ours`` it is pinned."""
    payload = out / f"payload-{name}"
    payload.mkdir()
    (payload / "x.gguf").write_bytes(b"GGUF" + b"\xff" * 200)
    with GitRepository(hub) as repository:
        staged = repository.artifacts.stage(payload, Manifest(Kind.RELEASE, name))
        artifact = repository.artifacts.publish(staged, bump=Bump.MINOR, who=WHO, why="test")
        if name == "ours":
            pin_release(repository, artifact, who=WHO)
    return PinnedRelease(artifact=artifact.tag.short, tree=artifact.tree)


def carry_away(hub: Path, marks: Path, env: Mapping[str, str], bundle: Path, refused: Path, out: Path) -> None:
    """A bundle of a hostile version that pins a release, as our command writes it; and one of all that git takes."""
    state = {"state/active.state.json": StateDocument(release=publish(hub, out, "theirs")).to_bytes()}
    git(hub, "tag", "-a", "-m", "evil", "v8.8.8", plant(hub, marks, env, state, lawful=True), env=env)
    words = [sys.executable, "-m", "workbench.cli.entry", "bundle", str(bundle), "v8.8.8", "--repo", str(hub)]
    subprocess.run(words, env=dict(env), check=True)
    git(hub, "tag", "-a", "-m", "evil", "v8.8.9", plant(hub, marks, env), env=env)
    git(hub, "bundle", "create", str(refused), "refs/tags/v8.8.9", env=env)


ANY = ("v9.9.9", "v9.9.8", "topic", "heads/v7.7.7", "v7.7.7", "active", "canary", "release", "{commit}", "HEAD", "main")
ODD = tuple(f"release/odd/{version}" for version in MANIFESTS)
THEIRS = ("incoming/{incoming}/v8.8.8", "incoming/{incoming}/release/theirs/v1.0.0")
BROWSED: dict[str, Sequence[Sequence[str]]] = {
    "status": [[]],
    "log": [[], ["--ledger"], ["--json"]],
    "show": [
        *([name] for name in (*ANY, *ODD, *THEIRS)),
        ["release/odd", "--files", "--lineage"],
        ["v9.9.9", "--json"],
    ],
    "diff": [["release/ours", "release/odd"], ["release/ours", THEIRS[1]], ["v9.9.9", "v1.0.0"]],
    "verify": [["v9.9.9"], ["topic"], ["release/odd/v1.0.0"], [THEIRS[1]], []],
    "checkout": [["release/odd/v1.0.0", "{out}/a"], [THEIRS[1], "{out}/b"], ["v9.9.9", "{out}/c"]],
    "bundle": [["{out}/v9.bundle", "v9.9.9"], ["{out}/odd.bundle", "release/odd"]],
    "unbundle": [["{refused}"], ["{bundle}"]],
    "incoming": [[], ["--json"]],
    "runs list": [[]],
    "runs show": [["01ARZ3NDEKTSV4RRFFQ69G5FAV"]],
    "runs tail": [["01ARZ3NDEKTSV4RRFFQ69G5FAV"]],
    "why": [["evil", "--pipeline", "evil"], ["crawl"], ["tool", "--pipeline", "tool"]],
    "run": [["--dry-run", name] for name in ("evil", "tool", "toml", "rust")],
    "complete": [["release/odd", "-p", "x"], [THEIRS[1], "-p", "x"]],
    "pin": [["release/odd"], [THEIRS[1]]],
    "doctor": [["--quick"]],
}
IN_THE_SANDBOX: dict[str, Sequence[Sequence[str]]] = {
    "contract": [["v9.9.9"], ["topic"], ["canary"], [THEIRS[0]]],
}
LISTS = {"status", "log", "incoming", "runs list"}  # what is odd is passed over and told
ACTS = {  # and not looking
    "gc", "hook", "http-backend", "import", "init", "mcp runner", "receive-pack", "runs cancel", "serve", "trust",
    "undo", "versions", "worker",
}  # fmt: skip


def commands(group: object, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        yield from commands(command, f"{before}{name} ") if hasattr(command, "commands") else [before + name]


def test_every_command_is_browsed_or_acts() -> None:
    assert set(commands(typer.main.get_command(app))) == {*BROWSED, *IN_THE_SANDBOX} | ACTS


def filled(words: Sequence[str], scene: Scene) -> list[str]:
    known = {name: str(getattr(scene, name)) for name in ("commit", "incoming", "out", "bundle", "refused")}
    return [re.sub(r"\{(\w+)\}", lambda match: known[match[1]], word) for word in words]


@pytest.mark.parametrize("command", [*BROWSED, *IN_THE_SANDBOX])
def test_browsing_by_command_runs_nothing_and_answers_at_once(scene: Scene, command: str, slowness: float) -> None:
    seconds = 1.0 if command in BROWSED else 3.0
    for given in (BROWSED | IN_THE_SANDBOX)[command]:
        for where in (scene.hub, scene.clone):
            words = [*command.split(), *filled(given, scene)]
            done, cpu_s = scene.run(words, where)
            told = f"workbench {' '.join(words)}: {done.returncode} after {cpu_s:.2f} s\n{done.stdout}{done.stderr}"
            assert scene.ran() == [], told
            assert done.returncode in ([0] if command in LISTS else range(11)), told
            assert "Traceback" not in done.stderr, told
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.stdout + done.stderr), told
            assert cpu_s < seconds * slowness, told


PARAMETERS = {
    "version": ("v9.9.9", "v9.9.8", "v7.7.7", "active", "v8.8.8", "v1.0.0", *MANIFESTS),
    "kind": ("release",),
    "name": ("odd", "ours", "theirs"),
    "path": ("x.gguf", "../../x", "manifest.json"),
    "id": ("{commit}", "{tree}", "{agents}", "{code}", "0" * 40),
}


def test_browsing_by_rest_runs_nothing_and_answers_at_once(scene: Scene, slowness: float) -> None:
    with GitRepository(scene.hub) as repository:
        objects = repository.objects
        commit = ObjectId(scene.commit)
        agents, code = objects.entry(commit, "agents"), objects.entry(commit, "agents/evil.py")
        assert agents is not None
        assert code is not None
        ids = {"commit": commit, "tree": objects.commit(commit).tree, "agents": agents.id, "code": code.id}
        application = create_app(repository, hosts={"localhost"})
        asked = 0
        with TestClient(application, base_url="http://localhost", raise_server_exceptions=False) as client:
            paths = {route.path for route in application.routes}  # type: ignore[attr-defined]
            for path in sorted(paths):
                for url in urls(path):
                    asked += 1
                    start_s = time.process_time()
                    answer = client.get(re.sub(r"\{(\w+)\}", lambda match: ids[match[1]], url))
                    spent_s = time.process_time() - start_s
                    assert scene.ran() == [], url
                    assert spent_s < 1.0 * slowness, url
                    told = f"{url}: {answer.status_code} {answer.text[:300]}"
                    assert "{" in path or answer.status_code == 200, told  # a list passes over what is odd
                    assert answer.status_code < 500 or set(answer.json()) == {"what", "hint"}, told
        assert asked > 40
    assert not [name for name in sys.modules if scene.commit in name or agents.id in name]


def urls(path: str) -> Iterator[str]:
    """The path with every value that a parameter may have; an unknown parameter is to be told here."""
    found = re.search(r"\{(\w+)(?::path)?\}", path)
    if found is None:
        yield path
        return
    for value in PARAMETERS[found[1]]:
        marked = value.replace("{", "<").replace("}", ">")
        yield from (url.replace("<", "{").replace(">", "}") for url in urls(path.replace(found[0], marked, 1)))


def test_a_hostile_main_is_not_pinned_and_the_reason_is_said(scene: Scene) -> None:
    main = git(scene.hub, "rev-parse", "main", env=scene.environment)
    state = git(scene.hub, "cat-file", "-p", "main:state/active.state.json", env=scene.environment).encode() + b"\n"
    evil = plant(scene.hub, scene.marks, scene.environment, {"state/active.state.json": state})
    git(scene.hub, "update-ref", str(MAIN), evil, main, env=scene.environment)
    try:
        done, _ = scene.run(["pin", "release/ours"], scene.hub)
        assert done.returncode == 3, done.stderr
        assert "has no contract: agents/ cannot be loaded" in done.stderr
        assert scene.ran() == []
    finally:
        git(scene.hub, "update-ref", str(MAIN), main, evil, env=scene.environment)


def test_trusting_the_bundle_runs_nothing_either(scene: Scene) -> None:
    for words in (["trust", scene.incoming], ["show", "v8.8.8"], ["pin", "release/theirs"]):
        done, _ = scene.run(words, scene.hub)
        assert "Traceback" not in done.stderr, done.stderr
        assert scene.ran() == [], words


def test_the_marks_would_be_seen(scene: Scene, tmp_path: Path) -> None:
    """The code that the others look at does leave its mark, where somebody runs it."""
    code = git(scene.hub, "cat-file", "-p", f"{scene.commit}:agents/evil.py", env=scene.environment)
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", code], timeout=3)
    git(scene.clone, "read-tree", "HEAD", env=scene.environment)
    subprocess.run(
        ["git", "checkout-index", "ci/tiers.toml"], cwd=scene.clone, env=scene.environment, capture_output=True
    )
    assert {"agents_evil.py", "process"} <= set(scene.ran())
    for mark in scene.marks.iterdir():
        mark.unlink()
