"""What is told of versions and artifacts, over a real repository; names that are not ours do no harm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.app.agents import pin_release
from workbench.app.template import template_files
from workbench.domain.errors import NotFound, UserError
from workbench.domain.ids import EMPTY_TREE, ZERO_ID
from workbench.domain.ledger import Action, RefMove
from workbench.domain.manifest import Manifest
from workbench.domain.refs import MAIN, ArtifactTag, Kind
from workbench.domain.version import Bump
from workbench.ports.store import Artifact
from workbench.runner.lookup import label
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub
from workbench.versions import describe

WHO = "A <a@example.com>"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitRepository]:
    monkeypatch.setenv("WORKBENCH_CACHE_DIR", str(tmp_path / "cache"))
    init_hub(tmp_path / "hub.git")
    with GitRepository(tmp_path / "hub.git") as made:
        tree = made.objects.add_tree(EMPTY_TREE, dict(template_files()))
        start = made.objects.add_commit(tree, parents=(), message="start\n", who=WHO, time_ms=1000)
        made.ledger.change(Action.INIT, [RefMove(MAIN, ZERO_ID, start)], who=WHO, why="start")
        yield made


def publish(
    repository: GitRepository, folder: Path, kind: Kind, text: str, inputs: tuple[Artifact, ...] = ()
) -> Artifact:
    folder.mkdir()
    (folder / "file.txt").write_text(text)
    staged = repository.artifacts.stage(folder, Manifest(kind, "rust"))
    made_from = [(artifact.tag, artifact.commit) for artifact in inputs]
    return repository.artifacts.publish(staged, bump=Bump.MINOR, inputs=made_from, who=WHO, why="test")


def test_tags_that_are_no_versions_are_passed_over(repository: GitRepository, tmp_path: Path) -> None:
    first = pin_release(repository, publish(repository, tmp_path / "a", Kind.RELEASE, "a"), who=WHO)
    names = ("backup", "v1.0", "v01.0.0", "v1.0.0-rc1", "release-2020", "team/backup", "model/rust/latest", "model/x")
    repository.refs.swap([RefMove.named(f"refs/tags/{name}", ZERO_ID, first.commit) for name in names])
    assert [found["version"] for found in describe.versions(repository)] == ["v1.0.0"]
    assert label(repository, first.commit) == "v1.0.0"
    assert [tag.short for tag in repository.artifacts.list()] == ["release/rust/v1.0.0"]
    second = pin_release(repository, publish(repository, tmp_path / "b", Kind.RELEASE, "b"), who=WHO)
    assert str(second.version) == "v1.0.1"


def test_versions_are_ordered_as_numbers_and_the_active_one_is_marked(
    repository: GitRepository, tmp_path: Path
) -> None:
    made = pin_release(repository, publish(repository, tmp_path / "a", Kind.RELEASE, "a"), who=WHO)
    main = repository.objects.commit(made.commit).parents[0]
    tags = ("v0.9.0", "v0.10.0", "v0.2.0")
    repository.refs.swap([RefMove.named(f"refs/tags/{tag}", ZERO_ID, main) for tag in tags])
    found = describe.versions(repository)
    assert [version["version"] for version in found] == ["v1.0.0", "v0.10.0", "v0.9.0", "v0.2.0"]
    assert [version["active"] for version in found] == [True, False, False, False]


def test_the_lineage_names_each_ancestor_once_nearest_first(repository: GitRepository, tmp_path: Path) -> None:
    data = publish(repository, tmp_path / "d", Kind.DATASET, "d")
    words = publish(repository, tmp_path / "t", Kind.TOKENIZER, "t", (data,))
    model = publish(repository, tmp_path / "m", Kind.MODEL, "m", (words, data))
    found = list(describe.lineage(repository, model))
    assert [ancestor.tag.short for ancestor in found] == ["tokenizer/rust/v1.0.0", "dataset/rust/v1.0.0"]
    assert [ancestor.artifact for ancestor in found] == [words, data]


def test_ancestors_that_are_gone_or_are_others_under_the_same_name_are_named_and_not_followed(
    repository: GitRepository, tmp_path: Path
) -> None:
    data = publish(repository, tmp_path / "d", Kind.DATASET, "d")
    words = publish(repository, tmp_path / "t", Kind.TOKENIZER, "t", (data,))
    model = publish(repository, tmp_path / "m", Kind.MODEL, "m", (words,))
    tags = {str(each.tag): repository.refs.get(str(each.tag)) or ZERO_ID for each in (data, words)}
    repository.refs.swap([RefMove.named(ref, value, ZERO_ID) for ref, value in tags.items()])
    (gone,) = describe.lineage(repository, model)
    assert (gone.tag, gone.commit, gone.artifact) == (words.tag, words.commit, None)
    other = publish(repository, tmp_path / "o", Kind.TOKENIZER, "another", ())
    assert other.tag == words.tag
    (foreign,) = describe.lineage(repository, model)
    assert (foreign.commit, foreign.artifact) == (words.commit, None)


@pytest.mark.parametrize("text", ["model/rust", "model/rust/v1.0.0", "refs/tags/model/rust/v1.0.0"])
def test_an_artifact_is_found_by_each_way_to_write_it(repository: GitRepository, tmp_path: Path, text: str) -> None:
    made = publish(repository, tmp_path / "m", Kind.MODEL, "m")
    assert describe.find_artifact(repository, text).tag == made.tag == ArtifactTag.parse("model/rust/v1.0.0")


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("model/rast", NotFound, "model/rust"),
        ("model/rust/v9.0.0", NotFound, "v1.0.0"),
        ("model", UserError, "KIND/NAME"),
        ("../../etc/passwd", UserError, "KIND"),
        ("model/../v1.0.0", UserError, "name"),
    ],
)
def test_what_is_no_artifact_is_said_with_what_there_is(
    repository: GitRepository, tmp_path: Path, text: str, error: type[UserError], says: str
) -> None:
    publish(repository, tmp_path / "m", Kind.MODEL, "m")
    with pytest.raises(error) as caught:
        describe.find_artifact(repository, text)
    assert says in str(caught.value)
