"""``verify``: what is whole is said to be whole, and what is not is named; ``--rebuild`` compares tree by tree."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workbench.domain.ids import ZERO_ID, Digest
from workbench.domain.ledger import Action, RefMove
from workbench.domain.manifest import FileEntry
from workbench.domain.version import Bump
from workbench.pipeline.rebuild import Rebuild
from workbench.pipeline.verify import verify
from workbench.sandbox.bubblewrap import Bubblewrap

WHO = "Test <test@example.com>"


def _errors(findings) -> list[str]:
    return [finding.what for finding in findings if finding.severity != "ok"]


def test_a_good_artifact_is_whole(toy) -> None:
    toy.run()
    found = verify(toy.repository, toy.artifact("dataset/toy/v1.0.0"))
    assert _errors(found) == []
    assert [finding.what for finding in found] == [
        "6 objects have the ids of their bytes: tags, commits, folders, files",
        "the manifest lists 1 files",
        "12 bytes have the checksums of the manifest",
        "made from raw/toy/v1.0.0",
    ]


def test_a_large_file_is_checked_part_by_part(toy, tmp_path) -> None:
    toy.run()
    (tmp_path / "payload").mkdir()
    (tmp_path / "payload" / "big.bin").write_bytes(bytes(range(256)) * (40 << 10))
    manifest = replace(toy.artifact("raw/toy/v1.0.0").manifest, name="big")
    staged = toy.repository.artifacts.stage(tmp_path / "payload", manifest)
    artifact = toy.repository.artifacts.publish(staged, bump=Bump.PATCH, who=WHO, why="test")
    assert artifact.manifest.files[0].chunks > 1
    assert _errors(verify(toy.repository, artifact)) == []


TAMPERED = {
    "another sum": (
        {"files": (FileEntry("counts.txt", Digest("0" * 64), 12),)},
        "counts.txt is not what the manifest says",
    ),
    "another size": ({"size": 11}, "counts.txt is not what the manifest says"),
    "a file that is not there": (
        {"files": (FileEntry("none.txt", Digest("0" * 64), 1),)},
        "the manifest lists payload/none.txt, which the tree does not hold",
    ),
    "a file too many": ({"files": ()}, "the tree holds payload/counts.txt, which the manifest does not list"),
    "no inputs": ({"inputs": ()}, "its input raw/toy/v1.0.0 is not one that the manifest lists"),
}


@pytest.mark.parametrize(("change", "message"), TAMPERED.values(), ids=TAMPERED.keys())
def test_a_manifest_that_lies_is_found_out(toy, change, message: str) -> None:
    toy.run()
    artifact = toy.artifact("dataset/toy/v1.0.0")
    if "size" in change:
        (file,) = artifact.manifest.files
        change = {"files": (replace(file, size=change["size"]),)}
    lying = replace(artifact, manifest=replace(artifact.manifest, **change))
    found = [
        what.replace("lists none.txt", "lists payload/none.txt") for what in _errors(verify(toy.repository, lying))
    ]
    assert any(message.replace("payload/", "") in what.replace("payload/", "") for what in found)


def test_an_input_that_is_gone_is_a_warning_with_the_command_that_brings_it(toy) -> None:
    toy.run()
    ref = "refs/tags/raw/toy/v1.0.0"
    moves = [RefMove.named(ref, toy.repository.refs.get(ref), ZERO_ID)]
    toy.repository.ledger.change(Action.DELETE, moves, who=WHO, why="test")
    (finding,) = [f for f in verify(toy.repository, toy.artifact("dataset/toy/v1.0.0")) if f.severity != "ok"]
    assert finding.severity == "warning"
    assert finding.fix == "git fetch hub tag raw/toy/v1.0.0"


def _rebuild(toy, new_repository, tmp_path, workers: int = 3) -> Rebuild:
    return Rebuild(
        toy.repository, new_repository("fresh.git"), (), tmp_path / "rebuild", toy.clock, workers, WHO,
        sandbox=Bubblewrap,
    )  # fmt: skip


def test_a_rebuild_in_an_empty_store_gives_the_same_trees(toy, new_repository, tmp_path) -> None:
    toy.run()
    rebuild = _rebuild(toy, new_repository, tmp_path)
    before = toy.refs()
    rows = rebuild.of(toy.artifact("dataset/toy/v1.0.0"))
    assert [(row.kind, row.how, row.equal, row.note) for row in rows] == [
        ("raw", "rebuilt", True, ""),
        ("dataset", "rebuilt", True, ""),
    ]
    assert toy.refs() == before
    assert not any((tmp_path / "rebuild").iterdir())


def test_a_stage_that_is_not_a_function_of_its_inputs_is_found(toy, new_repository, tmp_path) -> None:
    toy.replace(
        "tools/words.py", "end(output", "import uuid\n(output / 'id').write_text(str(uuid.uuid4()))\nend(output"
    )
    toy.run()
    raw, dataset = _rebuild(toy, new_repository, tmp_path).of(toy.artifact("dataset/toy/v1.0.0"))
    assert not raw.equal
    assert dataset.equal  # judged on the recorded input


def test_a_rebuild_says_when_the_environment_is_another_one(toy, new_repository, tmp_path) -> None:
    toy.run()
    artifact = toy.artifact("dataset/toy/v1.0.0")
    (tmp_path / "payload").mkdir()
    (tmp_path / "payload" / "counts.txt").write_bytes(toy.repository.artifacts.read(artifact, "counts.txt"))
    other = replace(artifact.manifest, environment={"format": "1", "torch": "1.0"}, code="0" * 64)
    staged = toy.repository.artifacts.stage(tmp_path / "payload", other)
    old = toy.repository.artifacts.publish(
        staged,
        bump=Bump.PATCH,
        inputs=[(toy.artifact("raw/toy/v1.0.0").tag, artifact.inputs[0][1])],
        source=toy.commit,
        who=WHO,
        why="test",
    )
    row = _rebuild(toy, new_repository, tmp_path).of(old)[-1]
    assert not row.equal
    assert f"made by other code: check out {toy.commit[:10]}" in row.note
    assert "torch was 1.0, is none" in row.note
