"""Refs that came in without our hooks: every reader goes on without them and says so; doctor's command mends them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from workbench.domain.ids import ObjectId
from workbench.rest.versions import create_app
from workbench.store.git.repository import GitRepository

RUN = "01J0000000000000000000000A"
MANIFEST = b'{"format": 1, "kind": "dataset", "name": "words", "files": [{"path": "a", "sha256": "%s", "size": true}]}'


def _git(hub: Path, *arguments: str, data: bytes = b"") -> str:
    command = ["git", "--git-dir", str(hub), "-c", "user.name=x", "-c", "user.email=x@y", *arguments]
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout.decode().strip()


def _commit(hub: Path, files: dict[str, bytes]) -> str:
    blobs = {name: _git(hub, "hash-object", "-w", "--stdin", data=data) for name, data in files.items()}
    lines = [f"100644 blob {id}\t{name}" for name, id in blobs.items()]
    return _git(hub, "commit-tree", "-m", "x", _git(hub, "mktree", data="\n".join(lines).encode()))


def _blob(hub: Path) -> str:
    return _git(hub, "hash-object", "-w", "--stdin", data=b"no commit")


def _tag(hub: Path, name: str, id: str) -> str:
    kind = _git(hub, "cat-file", "-t", id)
    return _git(hub, "mktag", data=f"object {id}\ntype {kind}\ntag {name}\ntagger x <x@y> 1 +0000\n\nx\n".encode())


BROKEN: dict[str, tuple[str, Callable[[Path], str]]] = {
    "a tag outside the grammar": ("refs/tags/foo/bar", lambda hub: _git(hub, "rev-parse", "main")),
    "a name that turns text round": ("refs/tags/a\u202eb", lambda hub: _git(hub, "rev-parse", "main")),
    "a number that is none": ("refs/tags/dataset/words/v2", lambda hub: _git(hub, "rev-parse", "main")),
    "a lightweight artifact tag": ("refs/tags/dataset/words/v7.0.0", lambda hub: _git(hub, "rev-parse", "main")),
    "an artifact tag of a blob": ("refs/tags/dataset/words/v7.0.0", lambda hub: _tag(hub, "t", _blob(hub))),
    "an artifact tag that is a blob": ("refs/tags/dataset/words/v7.0.0", _blob),
    "an artifact without a manifest": (
        "refs/tags/dataset/words/v7.0.0",
        lambda hub: _tag(hub, "t", _commit(hub, {"a": b"b"})),
    ),
    "an artifact with a broken manifest": (
        "refs/tags/dataset/words/v7.0.0",
        lambda hub: _tag(hub, "t", _commit(hub, {"manifest.json": MANIFEST})),
    ),
    "a version of a blob": ("refs/tags/v8.0.0", lambda hub: _tag(hub, "t", _blob(hub))),
    "a version that is a blob": ("refs/tags/v8.0.0", _blob),
    "a run that is a blob": (f"refs/workbench/runs/{RUN}", _blob),
    "a run with a broken record": (
        f"refs/workbench/runs/{RUN}",
        lambda hub: _commit(hub, {"run.json": b'{"format": 1, "id": 7}'}),
    ),
    "a run of another name": ("refs/workbench/runs/mine", _blob),
    "a channel of a blob": ("refs/workbench/channels/canary", _blob),
    "a ref of our own that we do not know": ("refs/workbench/news/today", _blob),
    "what came in and is a blob": (f"refs/workbench/incoming/{RUN}/tags/dataset/words/v9.0.0", _blob),
    "a ledger that is a commit": ("refs/workbench/ledger", lambda hub: _commit(hub, {"a": b"b"})),
    "a ledger that is a blob": ("refs/workbench/ledger", _blob),
    "a ledger with a broken entry": (
        "refs/workbench/ledger",
        lambda hub: _commit(hub, {"entry.json": b'{"format": 1, "counter": "1"}'}),
    ),
}
READERS = [
    "log", "log --json", "log --ledger", "log --ledger --json", "status", "status --json", "show dataset/words",
    "show dataset/words --lineage", "runs list", "runs list --json", "diff dataset/words/v1.0.0 dataset/words",
    "run --dry-run", "verify dataset/words", "incoming", "gc", "bundle OUT dataset/words/v1.0.0",
]  # fmt: skip
ROUTES = [
    "/api/v1/versions", "/api/v1/artifacts", "/api/v1/ledger", "/api/v1/runs", "/api/v1/passed-over",
    "/api/v1/artifacts/dataset/words/v1.0.0", "/api/v1/artifacts/dataset/words/v1.0.0/lineage",
]  # fmt: skip


@pytest.fixture(scope="module")
def stocked(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub with a workspace, an artifact and a ledger."""
    folder = tmp_path_factory.mktemp("stocked")
    assert cli(folder, "init", "agent").returncode == 0
    rows = "".join(json.dumps({"text": f"fn f{n}() {{}}", "license": "MIT"}) + "\n" for n in range(40))
    (folder / "words.jsonl").write_text(rows)
    done = cli(folder, "import", "words.jsonl", "--name", "words", "--license", "MIT", "--trust", "--repo", "agent.git")
    assert done.returncode == 0, done.stderr
    return folder / "agent.git"


def _code(command: Callable[[], int]) -> int:
    try:
        return command()
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.mark.parametrize("kind", BROKEN)
def test_every_reader_goes_on_without_it_and_doctor_names_it_and_mends_it(
    stocked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    from starlette.testclient import TestClient

    from workbench.cli.commands import run
    from workbench.cli.status import main as status

    hub = tmp_path / "it's the hub.git"
    shutil.copytree(stocked, hub)
    name, make = BROKEN[kind]
    before = _git(hub, "for-each-ref")
    _git(hub, "update-ref", name, ObjectId(make(hub)))

    for number, reader in enumerate(READERS):
        arguments = [*reader.replace("OUT", str(tmp_path / f"{number}.bundle")).split(" "), "--repo", str(hub)]
        code = _code(lambda args=arguments: status(args[1:]) if args[0] == "status" else run(args))
        said = capsys.readouterr()
        assert code == 0, (reader, said)
        told_by = {"log": "refs/tags/", "log --ledger": "refs/workbench/ledger", "runs list": "refs/workbench/runs/"}
        is_told = reader in told_by and name.startswith(told_by[reader])
        assert ("passed over" in said.err) is is_told or "--json" in reader
        assert "dataset/words/v1.0.0" in said.out or reader not in ("log", "show dataset/words")
        assert "\u202e" not in said.out + said.err or "--json" in reader, reader

    with GitRepository(hub) as repository, TestClient(create_app(repository, hosts=["testserver"])) as client:
        for route in ROUTES:
            answer = client.get(route)
            assert answer.status_code == 200, (route, answer.text)
        told = {each["ref"]: each for each in client.get("/api/v1/passed-over").json()}
    assert told.keys() == {name}

    _code(lambda: run(["doctor", "--quick", "--json", "--repo", str(hub)]))
    lines = [each for each in json.loads(capsys.readouterr().out) if name in each["what"] and "passed" in each["what"]]
    assert [each["fix"] for each in lines] == [told[name]["fix"]]
    subprocess.run(told[name]["fix"], shell=True, check=True, cwd=tmp_path)
    assert _git(hub, "for-each-ref") == before
