"""What strangers send lies beside what is ours until a person trusts it, and can be looked at meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.app import trusting, wiring
from workbench.app.carrying import bundle_names, unbundle_file
from workbench.app.importing.file import import_file, receive_file
from workbench.app.verifying import verify_ref
from workbench.domain.errors import NotFound, Refused, UserError
from workbench.domain.ledger import Action
from workbench.domain.manifest import Manifest
from workbench.domain.refs import Kind
from workbench.domain.version import Bump
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub
from workbench.versions.describe import find_any, find_artifact

WHO = "Ann <ann@localhost>"


def publish(repository: GitRepository, folder: Path, kind: Kind, text: str) -> str:
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text(text)
    staged = repository.artifacts.stage(folder, Manifest(kind, "rust", stage="test"))
    return repository.artifacts.publish(staged, bump=Bump.MINOR, who=WHO, why="a test").tag.short


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[GitRepository]:
    with GitRepository(init_hub(tmp_path / "theirs.git")) as repository:
        publish(repository, tmp_path / "1", Kind.RELEASE, "theirs")
        publish(repository, tmp_path / "2", Kind.DATASET, "theirs too")
        yield repository


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[GitRepository]:
    with GitRepository(init_hub(tmp_path / "ours.git")) as repository:
        publish(repository, tmp_path / "3", Kind.DATASET, "ours")
        yield repository


def sent(theirs: GitRepository, file: Path, *names: str) -> Path:
    bundle_names(theirs, names or ("release/rust", "dataset/rust"), file, with_inputs=False)
    return file


def tags(repository: GitRepository) -> list[str]:
    return [ref.removeprefix("refs/tags/") for ref in repository.refs.all("refs/tags/")]


def test_what_came_in_is_nobodys_newest_and_can_be_read(
    ours: GitRepository, theirs: GitRepository, tmp_path: Path
) -> None:
    taken = unbundle_file(ours, sent(theirs, tmp_path / "b", "release/rust"), who=WHO)
    assert taken.refs == ["refs/tags/release/rust/v1.0.0"]
    assert tags(ours) == ["dataset/rust/v1.0.0"]
    assert ours.artifacts.latest(Kind.RELEASE, "rust") is None
    [delivery] = trusting.deliveries(ours)
    [lies] = delivery.refs
    assert delivery.id == taken.incoming
    assert delivery.why == "unbundle b"
    artifact = find_any(ours, lies.short)
    assert ours.artifacts.read(artifact, "a.txt") == b"theirs"
    assert {finding.severity for finding in verify_ref(ours, lies.short)} == {"ok"}
    assert ours.resolve(lies.short) == artifact.commit
    with pytest.raises(Refused, match="nobody trusts") as caught:
        find_artifact(ours, lies.short)
    assert caught.value.hint == f"workbench trust {delivery.id}"
    for name in ("release/rust", "release/rust/v1.0.0"):
        with pytest.raises(UserError):
            find_artifact(ours, name)


def test_to_trust_gives_all_its_names_in_one_entry(ours: GitRepository, theirs: GitRepository, tmp_path: Path) -> None:
    taken = unbundle_file(ours, sent(theirs, tmp_path / "b", "release/rust"), who=WHO)
    before = ours.ledger.head()
    assert before is not None
    assert trusting.trust(ours, taken.incoming[-8:].lower(), who=WHO) == ["release/rust/v1.0.0"]
    entry = ours.ledger.head()
    assert entry is not None
    assert (entry.counter, entry.action) == (before.counter + 1, Action.TRUST)
    assert tags(ours) == ["dataset/rust/v1.0.0", "release/rust/v1.0.0"]
    assert ours.refs.get("refs/tags/release/rust/v1.0.0") == theirs.refs.get("refs/tags/release/rust/v1.0.0")
    assert not ours.refs.all("refs/workbench/incoming/")
    with pytest.raises(NotFound):
        trusting.trust(ours, taken.incoming, who=WHO)


def test_a_tag_that_exists_with_another_value_is_not_trusted_and_nothing_changes(
    ours: GitRepository, theirs: GitRepository, tmp_path: Path
) -> None:
    taken = unbundle_file(ours, sent(theirs, tmp_path / "b"), who=WHO)
    before = ours.refs.all()
    with pytest.raises(Refused, match=r"dataset/rust/v1\.0\.0 exists here") as caught:
        trusting.trust(ours, taken.incoming, who=WHO)
    assert ours.refs.all() == before
    assert caught.value.hint.endswith(f"workbench incoming --discard {taken.incoming}")
    trusting.discard(ours, taken.incoming, who=WHO)
    assert trusting.deliveries(ours) == []
    assert tags(ours) == ["dataset/rust/v1.0.0"]


def test_an_empty_repository_trusts_its_first_bundle_and_no_other(theirs: GitRepository, tmp_path: Path) -> None:
    file = sent(theirs, tmp_path / "b", "dataset/rust")
    second = sent(theirs, tmp_path / "c", "release/rust")
    with GitRepository(init_hub(tmp_path / "empty.git")) as empty:
        assert not unbundle_file(empty, file, who=WHO).incoming
        assert unbundle_file(empty, second, who=WHO).incoming
        assert tags(empty) == ["dataset/rust/v1.0.0"]
        assert not unbundle_file(empty, second, who=WHO, trust=True).incoming
        assert tags(empty) == ["dataset/rust/v1.0.0", "release/rust/v1.0.0"]


def test_an_older_bundle_is_told_as_such_and_taken(ours: GitRepository, theirs: GitRepository, tmp_path: Path) -> None:
    old = sent(theirs, tmp_path / "old", "release/rust")
    publish(theirs, tmp_path / "4", Kind.RELEASE, "newer")
    assert unbundle_file(ours, sent(theirs, tmp_path / "new", "release/rust"), who=WHO).note == ""
    taken = unbundle_file(ours, old, who=WHO)
    assert "made at entry 2 of a ledger of which one of entry 3 was taken in before" in taken.note
    assert [delivery.note == taken.note for delivery in trusting.deliveries(ours)] == [False, True]


def test_an_import_has_no_number_until_it_is_trusted(ours: GitRepository, tmp_path: Path) -> None:
    file = tmp_path / "docs.jsonl"
    file.write_text('{"text": "one"}\n{"text": "two"}\n')
    lies = receive_file(ours, file, clock=wiring.run_clock(ours), name="docs", license="MIT", who=WHO)
    assert ours.artifacts.latest(Kind.DATASET, "docs") is None
    assert ours.artifacts.read(find_any(ours, lies.short), "packages.jsonl")
    assert trusting.trust(ours, lies.id, who=WHO) == ["dataset/docs/v1.0.0"]
    assert not ours.refs.all("refs/workbench/incoming/")
    file.write_text('{"text": "three"}\n')
    assert import_file(ours, file, name="docs", license="MIT", who=WHO).tag.short == "dataset/docs/v1.1.0"


def test_a_number_without_room_above_it_is_not_taken_in(
    theirs: GitRepository, ours: GitRepository, tmp_path: Path
) -> None:
    last = "release/rust/v999999999.0.0"
    commit = theirs.objects.peel(theirs.refs.get("refs/tags/release/rust/v1.0.0"))  # type: ignore[arg-type]
    tag = theirs.objects.add_tag(last, commit, message="m", who=WHO, time_ms=0)
    theirs.refs.swap([trusting.RefMove.named(f"refs/tags/{last}", new=tag)])
    with pytest.raises(Refused, match="above 999,999"):
        unbundle_file(ours, sent(theirs, tmp_path / "b", last), who=WHO)
