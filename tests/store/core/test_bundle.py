"""Bundles: out of one repository, into another, and everything that must not come in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.domain.errors import NotFound, Refused, UserError, WorkbenchError
from workbench.domain.ids import Digest, ObjectId, make_ulid
from workbench.domain.ledger import Action, RefMove
from workbench.domain.manifest import FileEntry, InputEntry, Manifest
from workbench.domain.refs import ArtifactTag
from workbench.store.git.bundle import STATEMENT, bundle, unbundle
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub
from workbench.store.memory.repository import CountingClock

RELEASE = "refs/tags/release/rust/v1.0.0"
DATASET = "refs/tags/dataset/rust/v1.0.0"


def publish(repository: GitRepository, short: str, payload: dict[str, bytes], inputs: tuple[str, ...] = ()) -> str:
    """An artifact as the payload room makes it, by hand: this suite stands below that room."""
    tag, objects = ArtifactTag.parse(short), repository.objects
    commits = {name: repository.resolve(name) for name in inputs}
    manifest = Manifest(
        kind=tag.kind,
        name=tag.name,
        files=tuple(FileEntry(path, Digest("0" * 64), len(data)) for path, data in payload.items()),
        inputs=tuple(InputEntry(ArtifactTag.parse(n).kind, "rust", objects.commit(c).tree) for n, c in commits.items()),
    )
    files: dict[str, bytes | ObjectId | None] = {f"payload/{path}": data for path, data in payload.items()}
    tree = objects.add_tree(None, {**files, "manifest.json": manifest.to_bytes()})
    trailers = [("Input", f"{name} {commit}") for name, commit in commits.items()]
    commit = objects.add_commit(tree, parents=[], message=short, who="Ada", time_ms=1000, trailers=trailers)
    named = objects.add_tag(short, commit, message=short, who="Ada", time_ms=1000)
    repository.ledger.change(Action.PUBLISH, [RefMove(tag, new=named)], who="Ada", why=short)
    return str(tag)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[GitRepository]:
    with GitRepository(init_hub(tmp_path / "source.git"), clock=CountingClock()) as made:
        publish(made, "dataset/rust/v1.0.0", {"train.jsonl": b"{}\n" * 1000})
        publish(made, "tokenizer/rust/v1.0.0", {"tokenizer.model": b"\0\1"}, ("dataset/rust/v1.0.0",))
        publish(made, "release/rust/v1.0.0", {"a.gguf": bytes(range(256)) * 9000}, ("tokenizer/rust/v1.0.0",))
        yield made


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o027, 0o640), (0o022, 0o644)])
def test_who_may_read_a_bundle_is_what_the_umask_says(source, tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        bundle(source, [RELEASE], tmp_path / "out.bundle")
    finally:
        os.umask(before)
    assert (tmp_path / "out.bundle").stat().st_mode & 0o777 == mode


@pytest.fixture
def target(tmp_path: Path) -> Iterator[GitRepository]:
    with GitRepository(init_hub(tmp_path / "target.git"), clock=CountingClock()) as made:
        yield made


def tags(repository: GitRepository) -> dict[str, ObjectId]:
    return dict(repository.refs.all("refs/tags/"))


def untouched(repository: GitRepository) -> bool:
    """Nothing came in: no ref, no entry, no object, no leftovers."""
    found = [path for path in (repository.path / "objects").rglob("*") if path.is_file()]
    return not repository.refs.all() and not found and not list((repository.path / "objects").glob("tmp_*"))


def test_one_tag_travels_alone_and_arrives_as_the_same_object(source, target, tmp_path, git):
    file = tmp_path / "one.bundle"
    assert bundle(source, [RELEASE], file) == [RELEASE]
    assert unbundle(file, target, who="Bob") == [RELEASE]
    assert tags(target) == {RELEASE: source.refs.get(RELEASE)}
    assert target.objects.read_file(target.resolve("release/rust"), "payload/a.gguf") == bytes(range(256)) * 9000
    entry = target.ledger.head()
    assert (entry.action, entry.who, entry.counter) == (Action.UNBUNDLE, "Bob", 1)
    assert entry.evidence["counter"] == 3
    assert entry.evidence["ledger"] == source.refs.get("refs/workbench/ledger")
    git(target.path, "fsck", "--strict")


def test_with_inputs_brings_the_whole_lineage(source, target, tmp_path):
    file = tmp_path / "all.bundle"
    carried = bundle(source, [RELEASE], file, with_inputs=True)
    assert carried == sorted(tags(source))
    assert unbundle(file, target, who="Bob") == carried
    assert tags(target) == tags(source)


def test_the_same_bundle_twice_changes_nothing_the_second_time(source, target, tmp_path):
    bundle(source, [RELEASE], tmp_path / "b")
    unbundle(tmp_path / "b", target, who="Bob")
    before = target.refs.all()
    assert unbundle(tmp_path / "b", target, who="Bob") == []
    assert target.refs.all() == before


def test_the_same_tags_make_the_same_bundle(source, tmp_path):
    bundle(source, [RELEASE, DATASET], tmp_path / "a")
    bundle(source, [DATASET, RELEASE], tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_plain_git_reads_our_bundle_and_we_read_plain_gits(source, target, tmp_path, git):
    bundle(source, [RELEASE], tmp_path / "ours")
    assert RELEASE in git(tmp_path, "bundle", "list-heads", "ours")
    git(target.path, "bundle", "verify", "--quiet", str(tmp_path / "ours"))
    git(source.path, "bundle", "create", "--quiet", str(tmp_path / "theirs"), DATASET)
    assert unbundle(tmp_path / "theirs", target, who="Bob") == [DATASET]


def test_a_tag_that_exists_with_another_value_is_refused_and_nothing_comes_in(source, target, tmp_path):
    publish(target, "release/rust/v1.0.0", {"other": b"mine"})
    before = target.refs.all()
    bundle(source, [RELEASE, DATASET], tmp_path / "b")
    with pytest.raises(Refused, match="exists here"):
        unbundle(tmp_path / "b", target, who="Bob")
    assert target.refs.all() == before


def test_no_counter_of_a_stranger_locks_honest_bundles_out(source, target, tmp_path):
    bundle(source, [DATASET], tmp_path / "honest")
    publish(source, "release/rust/v1.0.1", {"a.gguf": b"fixed"})
    bundle(source, ["refs/tags/release/rust/v1.0.1"], tmp_path / "newer")
    unbundle(tmp_path / "newer", target, who="Bob")
    assert unbundle(tmp_path / "honest", target, who="Bob") == [DATASET]


def test_what_nobody_trusts_yet_lies_beside_the_tags(source, target, tmp_path):
    publish(target, "release/rust/v1.0.0", {"other": b"mine"})
    before = tags(target)
    bundle(source, [RELEASE, DATASET], tmp_path / "b")
    id = make_ulid(1, b"0123456789")
    assert unbundle(tmp_path / "b", target, who="Bob", incoming=id) == [DATASET, RELEASE]
    assert tags(target) == before
    lying = target.refs.all(f"refs/workbench/incoming/{id}/")
    assert lying == {
        ref.replace("refs/", f"refs/workbench/incoming/{id}/"): source.refs.get(ref) for ref in (DATASET, RELEASE)
    }
    assert unbundle(tmp_path / "b", target, who="Bob", incoming=make_ulid(2, b"0123456789")) == []


def test_what_cannot_be_bundled_says_so_and_leaves_no_file(source, tmp_path):
    for refs, error in (
        ([], UserError),
        (["refs/heads/main"], UserError),
        (["refs/tags/release/rust/v9.0.0"], NotFound),
    ):
        with pytest.raises(error):
            bundle(source, refs, tmp_path / "b")
    with pytest.raises(UserError, match="cannot write"):
        bundle(source, [RELEASE], tmp_path / "no" / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["source.git"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to a folder"])
def test_a_bundle_takes_the_place_of_nothing_but_a_plain_file(source, tmp_path, kind):
    """As root, a rename over /dev/null or /dev/full would take the machine's device away."""
    out = tmp_path / "there"
    if kind == "folder":
        out.mkdir()
    elif kind == "pipe":
        os.mkfifo(out)
    else:
        (tmp_path / "folder").mkdir()
        out.symlink_to("folder")
    before = sorted((path.name, path.lstat().st_mode) for path in tmp_path.iterdir())
    with pytest.raises(UserError, match="no plain file"):
        bundle(source, [RELEASE], out)
    assert sorted((path.name, path.lstat().st_mode) for path in tmp_path.iterdir()) == before


def test_a_link_to_a_bundle_stays_a_link(source, target, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/real")
    bundle(source, [RELEASE], tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert RELEASE in unbundle(tmp_path / "elsewhere" / "real", target, who="Bob")


def header_of(file: Path) -> tuple[bytes, bytes]:
    data = file.read_bytes()
    cut = data.index(b"\n\n") + 2
    return data[:cut], data[cut:]


@pytest.mark.parametrize(
    "damage", ["cut", "flip", "empty", "no signature", "endless header", "no such file", "a folder"]
)
def test_a_damaged_bundle_is_refused_and_nothing_comes_in(source, target, tmp_path, damage):
    file = tmp_path / "b"
    bundle(source, [RELEASE], file)
    head, pack = header_of(file)
    if damage == "cut":
        file.write_bytes(head + pack[: len(pack) // 2])
    elif damage == "flip":
        file.write_bytes(head + pack[:5000] + bytes([pack[5000] ^ 4]) + pack[5001:])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "no signature":
        file.write_bytes(b"# v9 git bundle\n" + head[16:] + pack)
    elif damage == "endless header":
        file.write_bytes(b"# v2 git bundle\n" + b"a" * 100_000)
    else:
        file.unlink()
        if damage == "a folder":
            file.mkdir()
    with pytest.raises(WorkbenchError) as refused:
        unbundle(file, target, who="Bob")
    assert refused.value.hint
    assert untouched(target)


def forge(source: GitRepository, file: Path, refs: dict[str, ObjectId]) -> Path:
    """A bundle as an enemy would write it."""
    tips = list(refs.values())
    pack = subprocess.run(
        ["git", "pack-objects", "--revs", "--stdout", "-q"],
        input="".join(f"{tip}\n" for tip in tips).encode(),
        cwd=source.path,
        capture_output=True,
        check=True,
    ).stdout
    lines = "".join(f"{id} {ref}\n" for ref, id in refs.items())
    file.write_bytes(b"# v2 git bundle\n" + lines.encode() + b"\n" + pack)
    return file


def test_a_bundle_that_carries_anything_but_tags_is_refused(source, target, tmp_path):
    id = source.refs.get(RELEASE)
    for ref in ("refs/heads/main", "refs/workbench/ledger", "refs/workbench/channels/active", "refs/tags/nonsense"):
        with pytest.raises(UserError):
            unbundle(forge(source, tmp_path / "b", {RELEASE: id, ref: id}), target, who="Bob")
    assert untouched(target)


def test_a_tag_whose_artifact_is_another_is_refused(source, target, tmp_path):
    refs = {"refs/tags/release/evil/v1.0.0": source.refs.get(RELEASE)}
    with pytest.raises(Refused, match="holds release/rust"):
        unbundle(forge(source, tmp_path / "b", refs), target, who="Bob")
    assert untouched(target)


def test_a_lightweight_tag_and_an_artifact_with_a_parent_are_refused(source, target, tmp_path):
    commit = source.resolve("release/rust")
    with pytest.raises(Refused, match="annotated"):
        unbundle(forge(source, tmp_path / "b", {RELEASE: commit}), target, who="Bob")
    info = source.objects.commit(commit)
    child = source.objects.add_commit(info.tree, parents=[commit], message="m", who="Eve", time_ms=0)
    tag = source.objects.add_tag("release/rust/v1.0.0", child, message="m", who="Eve", time_ms=0)
    with pytest.raises(Refused, match="parent"):
        unbundle(forge(source, tmp_path / "b", {RELEASE: tag}), target, who="Bob")
    assert untouched(target)


def test_a_bomb_in_a_bundle_is_refused(source, target, tmp_path):
    objects = source.objects
    tree = objects.add_tree(None, {"f": b"boom"})
    for _ in range(10):
        tree = objects.add_tree(None, {f"d{i}": tree for i in range(10)})
    commit = objects.add_commit(tree, parents=[], message="m", who="Eve", time_ms=0)
    tag = objects.add_tag("v1.0.0", commit, message="m", who="Eve", time_ms=0)
    with pytest.raises(Refused, match="paths"):
        unbundle(forge(source, tmp_path / "b", {"refs/tags/v1.0.0": tag}), target, who="Bob")
    assert untouched(target)


def test_a_bundle_that_lacks_an_object_is_refused(source, target, tmp_path):
    tag = source.refs.get(RELEASE)
    pack = subprocess.run(
        ["git", "pack-objects", "--stdout", "-q"],
        input=f"{tag}\n{source.objects.peel(tag)}\n".encode(),
        cwd=source.path,
        capture_output=True,
        check=True,
    ).stdout
    (tmp_path / "b").write_bytes(f"# v2 git bundle\n{tag} {RELEASE}\n\n".encode() + pack)
    with pytest.raises(WorkbenchError):
        unbundle(tmp_path / "b", target, who="Bob")
    assert untouched(target)


def test_a_statement_that_does_not_name_what_is_carried_is_refused(source, target, tmp_path):
    bundle(source, [RELEASE], tmp_path / "b")
    head, _ = header_of(tmp_path / "b")
    stated = next(line.split()[0] for line in head.decode().splitlines() if STATEMENT in line)
    refs = {RELEASE: source.refs.get(RELEASE), DATASET: source.refs.get(DATASET), STATEMENT: ObjectId(stated)}
    with pytest.raises(Refused, match="statement"):
        unbundle(forge(source, tmp_path / "b", refs), target, who="Bob")
    assert untouched(target)


def test_a_bundle_is_taken_in_with_the_network_cut_off(source, target, tmp_path):
    bundle(source, [RELEASE], tmp_path / "b")
    code = f"""
from pathlib import Path
from workbench.store.git.bundle import unbundle
from workbench.store.git.repository import GitRepository
with GitRepository(Path({str(target.path)!r})) as target:
    print(unbundle(Path({str(tmp_path / "b")!r}), target, who="Bob"))
"""
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", sys.executable, "-c", code], capture_output=True, text=True
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip("network namespaces are not to be had here")
    assert done.stdout == f"['{RELEASE}']\n", done.stderr
