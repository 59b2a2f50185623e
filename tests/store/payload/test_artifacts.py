"""Artifacts over both repositories: stage, publish, find, read, check out."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path
from typing import Any

import pytest

from workbench.domain.action import ActionParts
from workbench.domain.errors import NotFound, Refused, WorldError
from workbench.domain.ids import sha256
from workbench.domain.ledger import Action, RefMove
from workbench.domain.manifest import FileEntry
from workbench.domain.refs import ArtifactTag, Kind
from workbench.domain.tree_rules import BadTree, TreeWalk
from workbench.domain.version import Bump, Version
from workbench.hub.policy import PAYLOAD

LARGE = random.Random(1).randbytes(9 << 20)
FILES = {"a/b.txt": b"hello\n", "a.txt": b"", "z.bin": LARGE, "é/ü.rs": b"fn main() {}\n"}


def test_what_was_published_is_read_back_byte_for_byte(repository: Any, lab: Any, tmp_path: Path) -> None:
    artifact = lab.publish(repository, lab.folder("in", FILES))
    assert artifact.tag.short == "model/rust/v1.0.0"
    assert repository.artifacts.get(artifact.tag) == artifact
    for path, data in FILES.items():
        out = io.BytesIO()
        assert repository.artifacts.stream(artifact, path, out) == sha256(data)
        assert out.getvalue() == data == repository.artifacts.read(artifact, path)


def test_the_manifest_lists_every_file_with_its_size_digest_and_chunks(
    repository: Any, lab: Any, tmp_path: Path
) -> None:
    files = lab.publish(repository, lab.folder("in", FILES)).manifest.files
    assert [entry.path for entry in files] == sorted(FILES)
    assert {entry.path: entry.chunks for entry in files} == {"a.txt": 0, "a/b.txt": 0, "z.bin": 3, "é/ü.rs": 0}
    assert FileEntry("z.bin", sha256(LARGE), len(LARGE), 3) in files


def test_both_repositories_give_the_same_tree_id(hub: Any, memory: Any, lab: Any, tmp_path: Path) -> None:
    payload = lab.folder("in", FILES)
    assert hub.artifacts.stage(payload, lab.manifest()).tree == memory.artifacts.stage(payload, lab.manifest()).tree


def test_a_checkout_is_the_folder_that_was_published(repository: Any, lab: Any, tmp_path: Path) -> None:
    artifact = lab.publish(repository, lab.folder("in", FILES))
    repository.artifacts.checkout(artifact, tmp_path / "out")
    found = {
        str(path.relative_to(tmp_path / "out" / "payload")): path.read_bytes()
        for path in (tmp_path / "out" / "payload").rglob("*")
        if path.is_file()
    }
    assert found == FILES
    assert (tmp_path / "out" / "manifest.json").read_bytes() == artifact.manifest.to_bytes()
    with pytest.raises(Refused, match="is there already"):
        repository.artifacts.checkout(artifact, tmp_path / "out")


def test_a_checkout_below_a_file_says_what_is_in_the_way(repository: Any, lab: Any, tmp_path: Path) -> None:
    artifact = lab.publish(repository, lab.folder("in", FILES))
    (tmp_path / "file").write_text("")
    for place in ("file/out", "file/deep/out"):
        with pytest.raises(WorldError, match="a file is in the way"):
            repository.artifacts.checkout(artifact, tmp_path / place)


def test_the_same_tree_is_not_published_twice(repository: Any, lab: Any, tmp_path: Path) -> None:
    payload = lab.folder("in", {"a": b"1"})
    assert lab.publish(repository, payload) == lab.publish(repository, payload)
    assert len(repository.artifacts.list()) == 1


@pytest.mark.parametrize(("bump", "version"), [(Bump.MAJOR, "v2.0.0"), (Bump.MINOR, "v1.1.0"), (Bump.PATCH, "v1.0.1")])
def test_the_next_version_is_the_latest_raised_by_the_bump(
    repository: Any, lab: Any, tmp_path: Path, bump: Bump, version: str
) -> None:
    lab.publish(repository, lab.folder("1", {"a": b"1"}))
    assert str(lab.publish(repository, lab.folder("2", {"a": b"2"}), bump=bump).tag.version) == version


def test_versions_are_ordered_as_numbers_and_other_tags_are_passed_over(
    repository: Any, lab: Any, tmp_path: Path
) -> None:
    first = lab.publish(repository, lab.folder("in", {"a": b"0"}))
    for number in range(1, 12):
        lab.publish(repository, lab.folder("in", {"a": b"%d" % number}), bump=Bump.PATCH)
    repository.ledger.change(
        Action.IMPORT,
        [RefMove.named("refs/tags/model/rust/best", new=first.commit)],
        who=lab.who,
        why="a person's own tag",
    )
    latest = repository.artifacts.latest(Kind.MODEL, "rust")
    assert latest == ArtifactTag(Kind.MODEL, "rust", Version(1, 0, 11))
    assert repository.artifacts.list()[-1] == latest
    assert repository.artifacts.list(Kind.RAW) == []
    assert repository.artifacts.latest(Kind.MODEL, "rus") is None


def test_trailers_tell_where_an_artifact_came_from(repository: Any, lab: Any, tmp_path: Path) -> None:
    data = lab.publish(repository, lab.folder("1", {"a": b"1"}), lab.manifest(kind=Kind.DATASET))
    artifact = lab.publish(
        repository,
        lab.folder("2", {"a": b"2"}),
        inputs=[(data.tag, data.commit)],
        source="1" * 40,
        run="01ARZ3NDEKTSV4RRFFQ69G5FAV",
    )
    read = repository.artifacts.get(artifact.tag)
    assert read == artifact
    assert read.inputs == (("dataset/rust/v1.0.0", data.commit),)
    commit = repository.objects.commit(artifact.commit)
    assert commit.parents == ()
    assert commit.trailers[0] == ("Input", f"dataset/rust/v1.0.0 {data.commit}")


def test_tag_and_run_cache_entry_are_one_ledger_change(repository: Any, lab: Any, tmp_path: Path) -> None:
    parts = ActionParts(stage="train", name="rust", makes="model", code="0" * 64, seed=7)
    artifact = lab.publish(repository, lab.folder("in", {"a": b"1"}), cache=parts.to_json())
    entry = repository.run_cache.get(parts.key)
    assert entry == {
        "artifact": artifact.tag.short, "tree": artifact.tree, "commit": artifact.commit, "parts": parts.to_json()
    }  # fmt: skip
    assert repository.run_cache.last("train", "rust") == entry
    assert repository.ledger.head().counter == 1
    assert repository.run_cache.get("f" * 64) is None
    assert repository.run_cache.last("train", "other") is None


def test_another_action_that_makes_the_same_tree_is_remembered(repository: Any, lab: Any, tmp_path: Path) -> None:
    payload = lab.folder("in", {"a": b"1"})
    first, second = (ActionParts(stage="train", name="rust", makes="model", code=digit * 64) for digit in "01")
    artifact = lab.publish(repository, payload, cache=first.to_json())
    for _ in range(2):
        assert lab.publish(repository, payload, cache=second.to_json()) == artifact
    assert repository.run_cache.get(second.key)["artifact"] == artifact.tag.short
    assert repository.ledger.head().counter == 2


def test_an_artifact_is_found_by_its_tree(repository: Any, lab: Any, tmp_path: Path) -> None:
    artifact = lab.publish(repository, lab.folder("in", {"a": b"1"}))
    lab.publish(repository, lab.folder("in", {"a": b"2"}))
    assert repository.artifacts.by_tree(Kind.MODEL, artifact.tree) == artifact
    assert repository.artifacts.by_tree(Kind.RAW, artifact.tree) is None


def test_what_is_not_there_is_answered_with_the_nearest(repository: Any, lab: Any, tmp_path: Path) -> None:
    artifact = lab.publish(repository, lab.folder("in", {"tokens.bin": b"1"}))
    with pytest.raises(NotFound, match=r"the nearest is model/rust/v1\.0\.0"):
        repository.artifacts.get(ArtifactTag.parse("model/rust/v1.0.1"))
    with pytest.raises(NotFound, match=r"it has tokens\.bin"):
        repository.artifacts.read(artifact, "token.bin")


def test_links_devices_and_odd_names_are_refused_and_change_nothing(repository: Any, lab: Any, tmp_path: Path) -> None:
    def refused(name: str) -> None:
        with pytest.raises(Refused):
            repository.artifacts.stage(tmp_path / name, lab.manifest())

    (lab.folder("link", {"a": b"1"}) / "l").symlink_to("/etc/passwd")
    (lab.folder("linked", {"a": b"1"}) / "l").symlink_to(tmp_path)
    os.mkfifo(lab.folder("fifo", {"a": b"1"}) / "f")
    lab.folder("git", {".GIT/config": b""})
    lab.folder("control", {"a\nb": b""})
    lab.folder("bidi", {"a\u202eb": b""})
    lab.folder("case", {"a/x": b"", "A/y": b""})
    lab.folder("nfd", {"e\u0301": b""})
    (lab.folder("bytes", {}) / os.fsdecode(b"\xff")).write_bytes(b"")
    for name in ("link", "linked", "fifo", "git", "control", "bidi", "case", "nfd", "bytes"):
        refused(name)
    assert repository.artifacts.list() == []


def test_an_empty_payload_is_an_artifact(repository: Any, lab: Any, tmp_path: Path) -> None:
    artifact = lab.publish(repository, lab.folder("in", {}))
    repository.artifacts.checkout(artifact, tmp_path / "out")
    assert list((tmp_path / "out" / "payload").iterdir()) == []


def test_git_finds_nothing_wrong_and_little_written_twice(hub: Any, lab: Any, tmp_path: Path) -> None:
    lab.publish(hub, lab.folder("in", FILES))
    before = hub_bytes(hub)
    lab.publish(hub, lab.folder("in", {"a.txt": b"one file more"}))
    assert hub_bytes(hub) - before < 20_000
    assert lab.git(hub.path, "fsck", "--strict", "--no-progress", "--no-dangling") == b""


def hub_bytes(hub: Any) -> int:
    return sum(path.stat().st_size for path in (hub.path / "objects").rglob("*") if path.is_file())


def test_a_checkout_into_a_place_that_cannot_be_replaced_says_so(
    repository: Any, lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = lab.publish(repository, lab.folder("in", FILES))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for place in (Path("."), tmp_path / "here"):
        with pytest.raises(Refused, match=r"the folder that you are in\n.*out"):
            repository.artifacts.checkout(artifact, place)
    monkeypatch.setattr(Path, "is_mount", lambda self: True)
    (tmp_path / "there").mkdir()
    with pytest.raises(Refused, match="a mount point"):
        repository.artifacts.checkout(artifact, tmp_path / "there")
    assert os.listdir(tmp_path / "here") == os.listdir(tmp_path / "there") == []


def test_a_payload_is_paths_and_bytes_without_modes_and_empty_folders(hub: Any, lab: Any) -> None:
    folder = lab.folder("in", {"run.sh": b"#!/bin/sh\n", "d/f": b""})
    plain = hub.artifacts.stage(folder, lab.manifest()).tree
    (folder / "run.sh").chmod(0o755)
    (folder / "empty" / "inside").mkdir(parents=True)
    assert hub.artifacts.stage(folder, lab.manifest()).tree == plain


EVIL = b"*.c filter=evil\n"
STAYS = {
    "character": {"a:b.txt": b""}, "device-name": {"src/aux.c": b""}, "leading-dash": {"d/-x": b""},
    "shell": {"a`b": b""}, "edge": {"etc.": b""}, "submodule": {"pkg/.gitmodules": b""},
    "control-character": {"a\u200db": b""},
    "driver": {"pkg/.gitattributes": EVIL}, "size": {".GITATTRIBUTES": b"#" * (65 << 10)},
    "embedded-repository": {"x/HEAD": b"", "x/objects/y": b"", "x/refs/z": b""},
    "entries": {f"d/{number}": b"" for number in range(20_001)},
}  # fmt: skip
TRAVELS = {
    "plain": {"a/b/c.rs": b"", ".gitattributes": b"*.c text\n", "a.b/c": b"", "a-b": b"", "HEAD": b"", "refs/x": b""},
    "a full folder": {f"{number}": b"" for number in range(20_000)},
    "deep": {"/".join("d" * 47) + "/f": b""},
}


def judged_by_a_hub(hub: Any, files: dict[str, bytes]) -> str:
    """The rule that such a payload breaks where it is pushed or unbundled."""
    with hub._parts.blobs.writer() as writer:
        tree = writer.tree({f"payload/{path}": writer.blob(data) for path, data in files.items()})
    read = hub._database.read
    walk = TreeWalk(header=hub._database.header, read=lambda id: read(id)[1], clean={}, limits=PAYLOAD)
    try:
        walk.check(tree)
    except BadTree as bad:
        return bad.problem.rule
    return ""


@pytest.mark.parametrize("rule", STAYS)
def test_what_no_other_hub_would_take_is_not_made(hub: Any, lab: Any, rule: str) -> None:
    with pytest.raises(Refused, match=rf"no hub would take.*\({rule}\)"):
        hub.artifacts.stage(lab.folder("in", STAYS[rule]), lab.manifest())
    assert judged_by_a_hub(hub, STAYS[rule]) == rule


@pytest.mark.parametrize("files", TRAVELS.values(), ids=TRAVELS)
def test_what_other_hubs_take_is_made(hub: Any, lab: Any, files: dict[str, bytes]) -> None:
    assert len(hub.artifacts.stage(lab.folder("in", files), lab.manifest()).manifest.files) == len(files)
    assert judged_by_a_hub(hub, files) == ""
