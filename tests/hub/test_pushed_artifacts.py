"""An artifact that was made elsewhere is pushed as a tag or comes in a bundle: accepted as it is, refused when anything
in it is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from workbench.app.carrying import unbundle_file
from workbench.app.wiring import open_repository
from workbench.domain.errors import Refused, WorkbenchError
from workbench.domain.ids import ObjectId
from workbench.domain.manifest import InputEntry, Manifest
from workbench.domain.refs import ArtifactTag, Kind
from workbench.domain.version import Bump
from workbench.ports.store import Artifact, Repository

WHO = "Alice <alice@localhost>"
BIG = bytes(os.urandom(1) * 64 + b"0123456789abcdef" * ((9 << 20) // 16))  # over 8 MiB: a tree of chunks


@dataclass
class Elsewhere:
    """Another workspace, with an artifact that is sound, and its tag in the clone that pushes."""

    hub: Any
    repository: Repository
    good: Artifact

    def variant(
        self,
        changes: Mapping[str, bytes | ObjectId | None] | None = None,
        *,
        tag: str = "",
        named: str = "",
        parents: tuple[ObjectId, ...] = (),
        trailers: list[tuple[str, str]] | None = None,
        manifest: Callable[[dict[str, Any]], object] = lambda raw: None,
    ) -> str:
        """The good artifact with something about it changed, under a tag in the clone; the tag."""
        objects = self.repository.objects
        raw = json.loads(objects.read_file(self.good.tree, "manifest.json"))
        manifest(raw)
        tree = objects.add_tree(self.good.tree, {"manifest.json": json.dumps(raw).encode(), **(changes or {})})
        own = [("Input", f"{short} {commit}") for short, commit in self.good.inputs]
        commit = objects.add_commit(
            tree, parents=parents, message="m", who=WHO, time_ms=1, trailers=own if trailers is None else trailers
        )
        tag = tag or "dataset/books/v1.0.0"
        made = objects.add_tag(named or tag, commit, message="m", who=WHO, time_ms=1)
        self.hub.git("update-ref", f"refs/tags/{tag}", made)
        return tag

    def chunks(self) -> list[str]:
        return [e.path for e in self.repository.objects.walk(self.good.tree, "payload/big.bin")]

    def refused(self, tag: str, says: str, *, in_bundle: bool = True) -> None:
        before = self.hub.source_refs()
        pushed = self.hub.push(f"refs/tags/{tag}")
        assert not pushed.accepted
        assert says in pushed.text, pushed.text
        if in_bundle:
            self.hub.git("bundle", "create", "-q", "--version=2", "tag.bundle", f"refs/tags/{tag}")
            with open_repository(self.hub.path) as repository, pytest.raises(WorkbenchError):
                unbundle_file(repository, self.hub.clone / "tag.bundle", who=WHO)
        assert self.hub.source_refs() == before
        assert not list((self.hub.path / "objects").glob("tmp_*"))


def publish(repository: Repository, folder: Path, kind: Kind, inputs: list[Artifact]) -> Artifact:
    entries = tuple(InputEntry(each.tag.kind, each.tag.name, each.tree) for each in inputs)
    staged = repository.artifacts.stage(folder, Manifest(kind, "books", stage="test", inputs=entries))
    tags = [(each.tag, each.commit) for each in inputs]
    return repository.artifacts.publish(staged, bump=Bump.PATCH, inputs=tags, source="c" * 40, who=WHO, why="made")


@pytest.fixture
def elsewhere(toy_desk: Any, tmp_path: Path) -> Any:
    hub = toy_desk.under_test
    for name, files in {
        "raw": {"a.txt": b"a\n"},
        "dataset": {"a.txt": b"a\n", "deep/b.txt": b"b\n", "big.bin": BIG},
    }.items():
        for path, data in files.items():
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    with open_repository(hub.clone / ".git") as repository:
        raw = publish(repository, tmp_path / "raw", Kind.RAW, [])
        good = publish(repository, tmp_path / "dataset", Kind.DATASET, [raw])
        yield Elsewhere(hub, repository, good)


def test_a_sound_artifact_is_accepted_with_and_without_its_inputs(elsewhere: Elsewhere, toy_desk: Any) -> None:
    hub = elsewhere.hub
    assert "nothing to run" in hub.push("refs/tags/dataset/books/v1.0.0").text
    assert hub.push("refs/tags/raw/books/v1.0.0").accepted
    there = toy_desk.repository.artifacts.get(ArtifactTag.parse("dataset/books/v1.0.0"))
    assert (there.tree, there.commit) == (elsewhere.good.tree, elsewhere.good.commit)
    assert toy_desk.repository.artifacts.read(there, "deep/b.txt") == b"b\n"
    assert hub.push("refs/tags/dataset/books/v1.0.0").accepted, "again does nothing"


def test_a_sound_artifact_comes_in_by_a_bundle_as_well(elsewhere: Elsewhere, toy_desk: Any) -> None:
    hub, repository = elsewhere.hub, toy_desk.repository
    tags = ["refs/tags/dataset/books/v1.0.0", "refs/tags/raw/books/v1.0.0"]
    hub.git("bundle", "create", "-q", "--version=2", "two.bundle", *tags)
    assert unbundle_file(repository, hub.clone / "two.bundle", who=WHO, trust=True).refs == tags
    there = repository.artifacts.get(ArtifactTag.parse("dataset/books/v1.0.0"))
    assert (there.tree, there.commit) == (elsewhere.good.tree, elsewhere.good.commit)
    assert repository.artifacts.read(there, "deep/b.txt") == b"b\n"


def test_a_version_in_a_bundle_brings_no_tree_that_a_push_may_not(elsewhere: Elsewhere, toy_desk: Any) -> None:
    hub, objects = elsewhere.hub, elsewhere.repository.objects
    tree = objects.add_tree(None, {"agents/con.txt": b"x = 1\n"})
    before = objects.add_commit(tree, parents=(), message="m", who=WHO, time_ms=1)
    after = objects.add_commit(objects.add_tree(None, {"a": b"a\n"}), parents=[before], message="m", who=WHO, time_ms=1)
    hub.git("update-ref", "refs/tags/v7.0.0", objects.add_tag("v7.0.0", after, message="m", who=WHO, time_ms=1))
    hub.git("bundle", "create", "-q", "--version=2", "version.bundle", "refs/tags/v7.0.0")
    with pytest.raises(Refused, match=r"v7\.0\.0 .*con\.txt"):
        unbundle_file(toy_desk.repository, hub.clone / "version.bundle", who=WHO)
    assert "refs/tags/v7.0.0" not in hub.refs()


def test_an_artifact_in_which_anything_is_wrong_is_refused_with_the_reason(elsewhere: Elsewhere) -> None:
    """Many cases, one hub: none of them changes it."""
    e = elsewhere
    first, *_, last = (f"payload/big.bin/{name}" for name in e.chunks())
    ids = {name: e.repository.objects.entry(e.good.tree, name).id for name in (first, last)}  # type: ignore[union-attr]
    swap, moved = {first: ids[last], last: ids[first]}, {last: None, "payload/big.bin/01/000": ids[last]}
    short, commit = e.good.inputs[0]

    def listed(of: str, **change: object) -> Callable[[dict[str, Any]], object]:
        return lambda raw: next(f for f in raw["files"] if f["path"] == of).update(change)

    for make, says in [
        (lambda: e.variant({"payload/a.txt": b"b\n"}), "a.txt does not match its checksum"),
        (lambda: e.variant({"payload/a.txt": b"a\n\n"}), "a.txt does not match its checksum"),
        (lambda: e.variant({last: b"x"}), "big.bin does not match its checksum"),
        (lambda: e.variant(moved), "chunks of other names"),
        (lambda: e.variant({first: None}), "chunks of other names"),
        (lambda: e.variant(swap), "big.bin does not match its checksum"),
        (lambda: e.variant({last: None}), "big.bin is not the"),
        (lambda: e.variant({"payload/big.bin": BIG[:100]}), "big.bin is one blob, its manifest says"),
        (lambda: e.variant({"payload/deep/b.txt": None}), "b.txt is in the manifest but not in the payload"),
        (lambda: e.variant({"payload/extra.txt": b"x"}), "its manifest lists"),
        (lambda: e.variant({"README": b"x"}), "is not manifest.json and payload/"),
        (lambda: e.variant(manifest=listed("a.txt", sha256="0" * 64)), "a.txt does not match its checksum"),
        (lambda: e.variant(manifest=listed("a.txt", size=3)), "a.txt does not match its checksum"),
        (lambda: e.variant(manifest=listed("a.txt", sha256="0")), "not a sha256 digest"),
        (lambda: e.variant(manifest=listed("big.bin", chunks=1)), "is not the 1 chunks"),
        (lambda: e.variant(manifest=listed("a.txt", path="../a.txt")), "not in the payload"),
        (lambda: e.variant(manifest=lambda raw: raw.update(format=2)), "this workbench reads format 1"),
        (lambda: e.variant(manifest=lambda raw: raw.pop("seed")), "manifest cannot be read"),
        (lambda: e.variant(manifest=lambda raw: raw.update(name="films")), "its manifest says dataset/films"),
        (lambda: e.variant(manifest=lambda raw: raw.update(kind="model")), "its manifest says model/books"),
        (lambda: e.variant(manifest=lambda raw: raw["files"].append(raw["files"][0])), "lists a file twice"),
        (lambda: e.variant({"manifest.json": b"{"}), "manifest cannot be read"),
        (lambda: e.variant(parents=(e.good.commit,)), "has a parent commit"),
        (lambda: e.variant(named="dataset/books/v2.0.0"), "calls itself dataset/books/v2.0.0"),
        (lambda: e.variant(tag="dataset/films/v1.0.0"), "its manifest says dataset/books"),
        (lambda: e.variant(trailers=[]), "other inputs than its manifest"),
        (lambda: e.variant(trailers=[("Input", f"{short} {commit}")] * 2), "other inputs than its manifest"),
        (lambda: e.variant(trailers=[("Input", f"raw/other/v1.0.0 {commit}")]), "other inputs than its manifest"),
        (lambda: e.variant(trailers=[("Input", f"{short} {commit[:10]}")]), "wrong trailer: not an object id"),
        (lambda: e.variant(trailers=[("Input", f"nonsense {commit}")]), "wrong trailer: not an artifact"),
        (
            lambda: e.variant(trailers=[("Input", f"{short} {commit}"), ("Source", "main")]),
            "wrong trailer: not an object id",
        ),
        (lambda: e.variant(trailers=[("Input", f"{short} {commit}"), ("Run", "me")]), "wrong trailer: not a run id"),
        (
            lambda: e.variant(trailers=[("Input", f"{short} {commit}"), *[("Source", "a" * 40)] * 2]),
            "2 trailers Source",
        ),
    ]:
        e.refused(make(), says)


def test_an_input_that_the_hub_has_must_be_the_tree_that_the_manifest_says(elsewhere: Elsewhere) -> None:
    short, _ = elsewhere.good.inputs[0]
    assert elsewhere.hub.push("refs/tags/raw/books/v1.0.0").accepted
    other = elsewhere.hub.refs()["refs/heads/main"]
    elsewhere.refused(
        elsewhere.variant(trailers=[("Input", f"{short} {other}")]), "is not the tree that its manifest says"
    )


def test_versions_of_an_artifact_only_rise(elsewhere: Elsewhere) -> None:
    assert elsewhere.hub.push("refs/tags/dataset/books/v1.0.0").accepted
    low = elsewhere.variant(tag="dataset/books/v0.9.9")
    elsewhere.refused(low, "is not greater than v1.0.0, the latest", in_bundle=False)  # one may bring old versions
    elsewhere.variant()  # the clone's v1.0.0 is another one now
    before = elsewhere.hub.source_refs()
    assert "never changes" in elsewhere.hub.push("-f", "refs/tags/dataset/books/v1.0.0").text
    assert elsewhere.hub.source_refs() == before
    assert elsewhere.hub.push(f"refs/tags/{elsewhere.variant(tag='dataset/books/v1.0.1')}").accepted


def test_a_manifest_with_values_of_other_types_is_refused_with_its_place(elsewhere: Elsewhere) -> None:
    """At the push already and in a bundle, not when somebody reads it one day."""

    def first(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
        return lambda raw: raw["files"][0].update({name: value})

    def top(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
        return lambda raw: raw.update({name: value})

    size, cases = "files[0].size: ", [
        (first("size", True), "True is not a whole number"), (first("size", 1.9), "1.9 is not a whole number"),
        (first("size", "1"), "'1' is not a whole number"), (first("size", -1), "-1 is not within"),
        (first("size", None), "None is not a whole number"),
    ]  # fmt: skip
    for change, says in cases:
        elsewhere.refused(elsewhere.variant(manifest=change), size + says)
    for change, says in [
        (top("metrics", None), "metrics: None is not an object"),
        (top("metrics", {"a": float("nan")}), "NaN is not JSON"),
        (top("params", {"a": "\ud800"}), "half a character"), (top("more", 1), "more: no such field"),
        (top("seed", 10**30), "beyond 64 bits"), (top("counts", {"a": 1.5}), "counts.a: 1.5 is not a whole number"),
    ]:  # fmt: skip
        elsewhere.refused(elsewhere.variant(manifest=change), says)
    text = elsewhere.repository.objects.read_file(elsewhere.good.tree, "manifest.json")
    for data, says in [
        (b"\xef\xbb\xbf" + text, "byte order mark"), (text.replace(b'"seed"', b'"seed": 1, "seed"'), "stands twice"),
        (text.replace(b'"seed": 0', b'"seed": ' + b"9" * 4000), "more than 64 characters"),
        (text.replace(b'"params": {}', b'"params": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000), "nested deeper"),
    ]:  # fmt: skip
        assert data != text
        elsewhere.refused(elsewhere.variant({"manifest.json": data}), says)
