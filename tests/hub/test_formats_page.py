"""What a hub holds is what formats.md says: read by a script that knows that page and git's plumbing, none of ours."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import workbench
from workbench.domain.action import ActionParts
from workbench.domain.ids import ZERO_ID, make_ulid
from workbench.domain.ledger import Action, Entry, RefMove
from workbench.domain.manifest import Manifest
from workbench.domain.push import PushOptions
from workbench.domain.refs import Kind
from workbench.domain.run import RunRecord, State, StepRecord
from workbench.domain.version import Bump
from workbench.hub import runs
from workbench.pipeline.plan import Mode

Files = Callable[..., dict[str, str]]
PAGE = (Path(workbench.__file__).parent / "docs" / "formats.md").read_text()
READER = Path(__file__).with_name("plumbing_reader.py")
WHO = "Ann <ann@localhost>"


def read(hub: Path) -> Any:
    done = subprocess.run([sys.executable, "-IS", str(READER), str(hub)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def full(toy_desk: Any, toy_files: Files, tmp_path: Path) -> Any:
    """A hub that holds something of everything."""
    repository = toy_desk.repository
    toy_desk.under_test.edit({**toy_files("one two"), "agents/a.py": "x = 1\n"})
    toy_desk.told(toy_desk.under_test.push("-o", "promote=canary", "-o", "ci.tier=fast", "main"))
    toy_desk.work()
    payload = tmp_path / "payload"
    (payload / "deep").mkdir(parents=True)
    (payload / "deep" / "é.txt").write_text("ü\n")
    (payload / "empty").touch()
    (payload / "large.bin").write_bytes(bytes(range(256)) * (9 << 12) + b"end")
    parts = ActionParts(
        "shard", "books", "shards", "0" * 64, {"ratio": 0.5, "word": "ü"}, 7, {"dataset": "1" * 40}, {"numpy": "2"}
    )
    manifest = Manifest(Kind.SHARDS, "books", stage="shard", params=parts.params, seed=7, action_key=parts.key)
    staged = repository.artifacts.stage(payload, manifest)
    repository.artifacts.publish(staged, bump=Bump.MINOR, who=WHO, why="made", cache=parts.to_json())
    check = ActionParts("serve", "books", "", "2" * 64)
    result = {
        "artifact": "",
        "tree": "",
        "commit": "",
        "parts": check.to_json(),
        "result": {"counts": {}, "metrics": {}},
    }
    repository.run_cache.put(check.key, result, who=WHO, why="checked")
    repository.ledger.undo(who=WHO)
    channel = RefMove.named("refs/workbench/channels/x", ZERO_ID, repository.resolve("main"))
    repository.ledger.change(Action.PROMOTE, [channel], who="Zoë\n<z@localhost>", why="a\nb", evidence={"run": "x"})
    for text in ("a", "ü", "\u2028"):
        repository.journals.append("sessions", {"text": text, "n": 1.5})
    repository.journals.seal("sessions")
    repository.journals.append("sessions", {"b": [1, None]})
    repository.journals.seal("sessions")
    record = RunRecord(make_ulid(1, bytes(10)), "pipeline", "toy", "", "test", steps=(StepRecord("train"),))
    files = {"run.json": record.to_bytes(), "log/train.txt": b"\xff said\n"}
    files["checkpoint/train.json"] = b'{"action_key":"x","format":1}'
    repository.runs.write(record.id, files, folders={"checkpoint/train": payload})
    return toy_desk


def test_all_that_a_hub_holds_is_read_by_the_page_alone(full: Any) -> None:
    repository = full.repository
    found = read(full.under_test.path)
    assert sorted(found["artifacts"]) == sorted(tag.short for tag in repository.artifacts.list())
    for tag in repository.artifacts.list():
        ours, theirs = repository.artifacts.get(tag), found["artifacts"][tag.short]
        assert (ours.tree, ours.commit) == (theirs["tree"], theirs["commit"])
        assert Manifest.from_bytes(json.dumps(theirs["manifest"]).encode()) == ours.manifest
    entries = [Entry.from_bytes(json.dumps(raw).encode()) for raw in found["ledger"]]
    assert [entry.to_bytes() for entry in reversed(entries)] == [e.to_bytes() for e in repository.ledger.history(99)]
    assert {entry.action.value for entry in entries} == {"publish", "promote", "undo", "push", "handled"}
    for key, entry in found["run_cache"]["entries"].items():
        assert repository.run_cache.get(key) == entry
    assert found["run_cache"]["last"].keys() == {"words/toy", "count/toy", "shard/books", "serve/books"}
    assert sorted(found["runs"]) == sorted(repository.runs.list())
    for run, raw in found["runs"].items():
        assert runs.show_run(repository, run) == RunRecord.from_bytes(json.dumps(raw["record"]).encode())
    kinds = {raw["record"]["kind"]: raw for raw in found["runs"].values() if raw["events"]}
    assert set(kinds) == {"pipeline", "tier", "push"}
    assert all(raw["events"][-1] == "run_ended" for raw in kinds.values())
    [checkpoint] = [raw["checkpoints"] for raw in found["runs"].values() if raw["checkpoints"]]
    assert checkpoint == {"train": {"deep/é.txt": 3, "empty": 0, "large.bin": (9 << 20) + 3}}
    assert found["journals"] == {"sessions": [record for _, record in repository.journals.read("sessions")]}
    assert len(found["journals"]["sessions"]) == 4


LEDGER, CACHE, JOURNAL = "refs/workbench/ledger", "refs/workbench/cache", "refs/workbench/journal/sessions"
Change = Callable[[bytes], bytes]
WRONG: list[tuple[str, str, Change]] = [
    (LEDGER, "entry.json", lambda data: data.replace(b"\n", b"\n ")),
    (LEDGER, "entry.json", lambda data: data.replace(b'"format": 1', b'"format": 2')),
    (CACHE, "last/words/toy", lambda data: data.strip()),
    (JOURNAL, "000000/000000000000-000000000002", lambda data: data.replace(b"1.5", b"9.5")),
]


def test_what_is_not_as_the_page_says_is_noticed(full: Any) -> None:
    """So that the reader is one."""
    objects, hub = full.repository.objects, full.under_test
    for ref, path, change in WRONG:
        top = full.repository.refs.get(ref)
        data, info = objects.read_file(top, path), objects.commit(top)
        assert change(data) != data
        tree = objects.add_tree(info.tree, {path: change(data)})
        commit = objects.add_commit(tree, parents=info.parents, message=info.message, who=WHO, time_ms=1)
        hub.git("update-ref", ref, commit, folder=hub.path)
        done = subprocess.run([sys.executable, "-IS", str(READER), str(hub.path)], capture_output=True, text=True)
        assert "AssertionError" in done.stderr, (ref, path)
        hub.git("update-ref", ref, top, folder=hub.path)
    read(hub.path)


def section(title: str) -> set[str]:
    """Every word that stands in code in a section of the page."""
    text = re.search(rf"^## {title}.*?(?=^## |\Z)", PAGE, re.M | re.S)
    assert text, title
    return {word for code in re.findall(r"`([^`]+)`", text[0]) for word in re.findall(r"\w+", code)}


def names(kind: Any, *, without: str = "") -> set[str]:
    return {field.name for field in fields(kind)} - set(without.split())


def test_every_field_and_word_of_the_formats_is_on_the_page() -> None:
    assert names(Manifest) | {"format", "chunks", "sha256", "size"} <= section("Artifact")
    assert names(Entry, without="commit") | {action.value for action in Action} <= section("Ledger entry")
    assert names(ActionParts) | {"format", "result"} <= section("Run cache")
    run = section("Run, format 1")
    assert names(RunRecord) | names(StepRecord) | {state.value for state in State} <= run
    assert names(PushOptions, without="wait wait_s dry") | names(Mode) | {"mode", "runs"} <= run
