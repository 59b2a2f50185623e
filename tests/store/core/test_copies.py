"""A second copy of an object that is damaged: found though git reads the whole one, and dropped by what is named."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.store.git.copies import MAX_NAMED, _loose_id, damaged_copies, damaged_indexes
from workbench.store.git.doctor import has_bitmap
from workbench.store.git.encoding import object_id_of
from workbench.store.git.repository import GitRepository

MANY = [b"%d\n" % number * 500 for number in range(30)]
LARGE = bytes(range(256)) * (3 << 12)  # 3 MiB: what git streams


@pytest.fixture
def blobs(git_repository: GitRepository, git) -> list[str]:
    """Thirty blobs and a large one below main, loose; the ids."""
    objects = git_repository.objects
    ids = [objects.add_blob(data) for data in [*MANY, LARGE]]
    tree = objects.add_tree(None, {f"{number:02d}": id for number, id in enumerate(ids)})
    commit = objects.add_commit(tree, parents=[], message="m", who="Ada", time_ms=0)
    git(git_repository.path, "update-ref", "refs/heads/main", commit)
    return ids


def pack(hub: Path, *ids: str) -> Path:
    """A pack of these objects, beside whatever copies there are."""
    done = subprocess.run(
        ["git", "pack-objects", "-q", str(hub / "objects" / "pack" / "pack")],
        input="".join(f"{id}\n" for id in ids).encode(),
        cwd=hub,
        capture_output=True,
        check=True,
    )
    return hub / "objects" / "pack" / f"pack-{done.stdout.decode().strip()}.pack"


def flip(path: Path, at: int) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def place_of(pack: Path, id: str) -> int:
    """The middle of an object's bytes in a pack."""
    rows = subprocess.run(["git", "verify-pack", "-v", str(pack)], capture_output=True, text=True, check=True).stdout
    words = next(line.split() for line in rows.splitlines() if line.startswith(id))
    return int(words[4]) + int(words[3]) // 2


def errors(hub: Path) -> dict[str, str]:
    return {finding.what: finding.fix for finding in damaged_copies(hub) if finding.severity == "error"}


def mend(fix: str) -> None:
    """What a person does who is told this."""
    command = fix.split("     ")[0].replace("workbench gc", f"{sys.executable} -m workbench.cli.entry gc")
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_where_all_is_whole_nothing_is_said_but_how_much_it_was(git_repository, blobs):
    pack(git_repository.path, *blobs[:3])
    [finding] = damaged_copies(git_repository.path)
    assert finding.severity == "ok"
    assert finding.what.startswith("1 packs and 33 loose objects were read")


@pytest.mark.parametrize("victim", [7, 30], ids=["small", "large"])
def test_a_damaged_copy_in_a_second_pack_is_named_and_dropped(git_repository, blobs, git, victim):
    hub = git_repository.path
    pack(hub, *blobs)
    other = pack(hub, *blobs[5:9], blobs[30])
    git(hub, "prune-packed")
    git(hub, "multi-pack-index", "write")
    other.with_suffix(".keep").touch()
    flip(other, place_of(other, blobs[victim]))
    [(what, fix)] = errors(hub).items()
    assert what == f"{other.name}: its copy of object {blobs[victim]} is damaged"
    mend(fix)
    assert errors(hub) == {}
    assert not other.exists()
    git(hub, "fsck", "--strict")


def test_a_damaged_loose_copy_of_a_packed_object_is_named_and_dropped(git_repository, blobs, git):
    hub = git_repository.path
    pack(hub, *blobs)
    loose = hub / "objects" / blobs[3][:2] / blobs[3][2:]
    flip(loose, 12)
    git_repository.close()
    assert git_repository.objects.read_blob(blobs[3]) == MANY[3], "git does not look at it"
    [(what, fix)] = errors(hub).items()
    assert what == f"the loose copy of object {blobs[3]} is damaged"
    mend(fix)
    assert errors(hub) == {}
    git(hub, "fsck", "--strict")


def test_the_only_copy_is_not_dropped_by_what_is_named(git_repository, blobs, git):
    hub = git_repository.path
    git(hub, "repack", "-adq")
    [only] = (hub / "objects" / "pack").glob("*.pack")
    flip(only, place_of(only, blobs[3]))
    [fix] = errors(hub).values()
    assert subprocess.run(fix.replace("workbench gc", "true"), shell=True, capture_output=True).returncode != 0
    assert only.exists()


def test_many_damaged_copies_are_counted(git_repository, blobs):
    made = pack(git_repository.path, *blobs)
    made.chmod(0o644)
    data = bytearray(made.read_bytes())
    for at in range(20, len(data) - 20, 8):
        data[at] ^= 1
    made.write_bytes(data)
    found = list(errors(git_repository.path))
    assert len(found) == MAX_NAMED + 1
    assert found[-1] == f"{made.name}: {31 - MAX_NAMED} more copies are damaged"


def test_a_damaged_index_and_a_damaged_checksum_are_told_apart(git_repository, blobs):
    made = pack(git_repository.path, *blobs)
    flip(made, made.stat().st_size - 3)
    [what] = errors(git_repository.path)
    assert "does not have the checksum that it says, though its objects are whole" in what
    flip(made, made.stat().st_size - 3)
    flip(made.with_suffix(".idx"), 1200)
    [(what, fix)] = errors(git_repository.path).items()
    assert what == f"the index of {made.name} is damaged"
    mend(fix)
    assert errors(git_repository.path) == {}


def test_a_damaged_bitmap_or_any_other_index_is_named_by_doctor_and_made_again(git_repository, blobs, git):
    hub = git_repository.path
    git_repository.maintain()
    git(hub, "commit-graph", "write", "--reachable")
    made = [path for end in ("*.bitmap", "*.rev", "multi-pack-index") for path in (hub / "objects/pack").glob(end)]
    made.append(hub / "objects" / "info" / "commit-graph")
    assert len(made) >= 3
    assert list(damaged_indexes(hub)) == []
    for path in made:
        flip(path, path.stat().st_size // 2)
        [finding] = damaged_indexes(hub)
        assert finding.what.startswith(f"{path.name} is damaged")
        assert finding in git_repository.check()
        mend(finding.fix)
        assert list(damaged_indexes(hub)) == []
    assert has_bitmap(hub)


@given(data=st.binary(max_size=4000), repeat=st.sampled_from([1, 1, 3000]), damage=st.integers(0, 10_000))
def test_any_byte_of_a_loose_object_counts(tmp_path_factory, data, repeat, damage):
    path = tmp_path_factory.getbasetemp() / "loose"
    data *= repeat
    id = object_id_of("blob", data)
    raw = b"blob %d\0" % len(data) + data
    stored = bytearray(zlib.compress(raw))
    path.write_bytes(stored)
    assert _loose_id(path) == id
    stored[damage % len(stored)] ^= 0x10
    path.write_bytes(stored)
    if _loose_id(path) == id:  # some bits mean nothing to deflate
        assert zlib.decompress(stored) == raw
    path.write_bytes(stored[:-1])
    assert _loose_id(path) != id
