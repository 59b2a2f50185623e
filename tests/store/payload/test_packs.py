"""Packs that we write are read by git, dulwich and libgit2; nothing is seen of one that was not finished."""

from __future__ import annotations

import errno
import mmap
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.domain.errors import Corrupt, WorldError
from workbench.domain.ids import ObjectId
from workbench.domain.version import Bump
from workbench.ports.store import Staged
from workbench.store.git import reuse
from workbench.store.payload import packs
from workbench.store.payload.blobs import PackBlobs, read_whole
from workbench.store.payload.packs import Pack, deflate, index_of, object_id_of

RANDOM = random.Random(5)
BLOBS = [b"", b"x", b"text " * 10_000, RANDOM.randbytes(65_535), RANDOM.randbytes(65_536), RANDOM.randbytes(3 << 20)]


def write(git_dir: Path, blobs: list[bytes]) -> list[ObjectId]:
    ids = [object_id_of("blob", data) for data in blobs]
    with Pack(git_dir / "objects") as pack:
        for id, data in zip(ids, blobs, strict=True):
            pack.add("blob", id, data)
        pack.finish()
    return ids


@given(st.binary(max_size=200_000), st.sampled_from([0, 1]))
@settings(max_examples=30)
def test_any_inflater_reads_what_we_deflate(data: bytes, level: int) -> None:
    assert zlib.decompress(deflate(data, level)) == data


def test_git_dulwich_and_libgit2_read_the_same_objects(hub: Any, lab: Any) -> None:
    import pygit2
    from dulwich.repo import Repo

    ids = write(hub.path, [*BLOBS, BLOBS[0]])
    other, libgit2 = Repo(str(hub.path)), pygit2.Repository(str(hub.path))
    try:
        for id, data in zip(ids, BLOBS, strict=False):
            assert lab.git(hub.path, "cat-file", "blob", id) == data
            assert other[id.encode()].as_raw_string() == data
            assert libgit2[id].data == data
    finally:
        other.close()
    (pack,) = (hub.path / "objects" / "pack").glob("*.pack")
    lab.git(hub.path, "verify-pack", str(pack))
    lab.git(hub.path, "index-pack", "--strict", "-o", str(lab.root / "other.idx"), str(pack))
    assert (lab.root / "other.idx").read_bytes() == pack.with_suffix(".idx").read_bytes()


def test_weights_are_stored_as_they_are_and_text_is_deflated(hub: Any) -> None:
    import numpy as np

    weights = (np.random.default_rng(0).standard_normal(1 << 18, np.float32) * 0.02).tobytes()
    assert not packs.worth_deflating(weights)
    assert packs.worth_deflating(b"pub fn main() { println!(); }\n" * 1000)
    write(hub.path, [weights])
    (pack,) = (hub.path / "objects" / "pack").glob("*.pack")
    assert len(weights) < pack.stat().st_size < len(weights) + 1000


def test_an_index_beyond_two_gibibytes_uses_large_offsets() -> None:
    entries = [(bytes([n]) * 20, n, offset) for n, offset in enumerate([12, (1 << 31) - 1, 1 << 31, 1 << 40])]
    index = index_of(entries, b"c" * 20)
    small = struct.unpack(">4I", index[8 + 1024 + 4 * 24 :][:16])
    assert small == (12, (1 << 31) - 1, 1 << 31, 1 << 31 | 1)
    assert struct.unpack(">2Q", index[8 + 1024 + 4 * 28 :][:16]) == (1 << 31, 1 << 40)


def test_nothing_remains_of_a_pack_that_was_not_finished(hub: Any) -> None:
    def fail() -> None:
        with Pack(hub.path / "objects") as pack:
            for data in BLOBS:
                pack.add("blob", object_id_of("blob", data), data)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list((hub.path / "objects" / "pack").iterdir()) == []


def test_a_full_disk_is_an_error_that_leaves_nothing(hub: Any) -> None:
    """The real thing: a limit on the size of files, in a process of its own."""
    program = f"""
import os, resource, signal
from pathlib import Path
from workbench.store.payload.packs import Pack, object_id_of
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
with Pack(Path({str(hub.path)!r}) / "objects") as pack:
    for number in range(40):
        data = os.urandom(1_000_000)
        pack.add("blob", object_id_of("blob", data), data)
    pack.finish()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "WorldError" in done.stderr
    assert os.strerror(errno.EFBIG) in done.stderr
    assert list((hub.path / "objects" / "pack").iterdir()) == []


def test_a_missing_folder_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises((WorldError, FileNotFoundError)):
        write(tmp_path / "nowhere", [b"x"])


def test_objects_that_are_there_are_not_written_again(hub: Any) -> None:
    blobs = PackBlobs(hub.path, hub.objects)
    for _ in range(3):
        with blobs.writer() as writer:
            ids = [writer.blob(data) for data in BLOBS]
            writer.tree({f"{n}/x": id for n, id in enumerate(ids)})
    assert len(list((hub.path / "objects" / "pack").glob("*.pack"))) == 1
    assert [read_whole(blobs, [id]) for id in ids] == BLOBS


def test_many_blobs_come_back_in_order_whatever_their_number(hub: Any) -> None:
    data = [b"%d" % number * (number % 700) for number in range(3000)]
    blobs = PackBlobs(hub.path, hub.objects)
    with blobs.writer() as writer:
        ids = [writer.blob(each) for each in data]
    assert read_whole(blobs, ids) == b"".join(data)
    assert [piece for piece, _ in blobs.read([])] == []


def test_a_missing_blob_and_a_tree_in_its_place_are_corrupt(hub: Any) -> None:
    blobs = PackBlobs(hub.path, hub.objects)
    with blobs.writer() as writer:
        tree = writer.tree({"a": writer.blob(b"x")})
    for id in (ObjectId("1" * 40), tree):
        with pytest.raises(Corrupt, match=id):
            read_whole(blobs, [id])


@pytest.mark.parametrize(("nth", "num_blobs"), [(2, 2), (4, 6), (2, 40)])
def test_a_writing_thread_that_is_out_of_memory_publishes_nothing_and_keeps_nobody_waiting(
    hub: Any, monkeypatch: pytest.MonkeyPatch, nth: int, num_blobs: int
) -> None:
    """Few batches, so that the queue has room; and many, so that it is full when the thread ends."""
    encode, asked = packs.deflate, iter(range(1, 1000))

    def out_of_memory(data: bytes, level: int) -> bytes:
        if next(asked) == nth:
            raise MemoryError
        return encode(data, level)

    def write_all() -> None:
        with PackBlobs(hub.path, hub.objects).writer() as writer:
            for number in range(num_blobs):
                writer.blob(number.to_bytes(2, "big") + data)

    data = RANDOM.randbytes(1 << 20)
    monkeypatch.setattr(packs, "deflate", out_of_memory)
    with pytest.raises(WorldError, match="out of memory"):
        write_all()
    assert list((hub.path / "objects" / "pack").iterdir()) == []


def test_an_artifact_whose_tree_is_not_there_is_not_published(repository: Any, lab: Any) -> None:
    staged = Staged(ObjectId("1" * 40), lab.manifest())
    with pytest.raises(Corrupt, match="stage the payload again"):
        repository.artifacts.publish(staged, bump=Bump.MINOR, who=lab.who, why="a test")
    assert repository.artifacts.list() == []


def age(hub: Any, days: float) -> None:
    """As if everything in the repository had been written so many days ago."""
    then = time.time() - days * 86400
    for path in (hub.path / "objects").rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


@pytest.mark.parametrize("packed", [True, False])
def test_what_a_writer_relies_on_outlives_the_cruft_pack_that_held_it(hub: Any, lab: Any, packed: bool) -> None:
    blobs = PackBlobs(hub.path, hub.objects)

    def write_all() -> list[ObjectId]:
        if not packed:
            return [hub.objects.add_blob(data) for data in BLOBS]
        with blobs.writer() as writer:
            return [writer.blob(data) for data in BLOBS]

    write_all()
    age(hub, 13)
    lab.git(hub.path, "repack", "--cruft", "-d", "--quiet")
    assert list((hub.path / "objects" / "pack").glob("*.mtimes"))
    ids = write_all()
    lab.git(hub.path, "repack", "--cruft", "--cruft-expiration=12.days.ago", "-d", "--quiet")
    lab.git(hub.path, "prune", "--expire=12.days.ago")
    assert [read_whole(blobs, [id]) for id in ids] == BLOBS


@pytest.mark.parametrize("packed", [True, False])
def test_what_a_writer_relies_on_is_young_before_the_writer_ends(hub: Any, lab: Any, packed: bool) -> None:
    blobs = PackBlobs(hub.path, hub.objects)
    if packed:
        write(hub.path, BLOBS)
    else:
        for data in BLOBS:
            hub.objects.add_blob(data)
    age(hub, 13)
    with blobs.writer() as writer:
        ids = [writer.blob(data) for data in BLOBS]
        lab.git(hub.path, "repack", "--cruft", "--cruft-expiration=12.days.ago", "-d", "--quiet")
        lab.git(hub.path, "prune", "--expire=12.days.ago")
    assert [read_whole(blobs, [id]) for id in ids] == BLOBS


@given(st.sets(st.binary(min_size=20, max_size=20), max_size=300), st.binary(min_size=20, max_size=20))
@settings(max_examples=30, deadline=None)
def test_an_index_is_searched_as_git_wrote_it(names: set[bytes], other: bytes) -> None:
    with mmap.mmap(-1, 1 << 16) as index:
        index.write(index_of([(name, 0, 12) for name in names], b"c" * 20))
        assert all(reuse._holds(index, name) for name in names)
        assert reuse._holds(index, other) == (other in names)


def test_blobs_come_back_through_pipes_of_one_page(hub: Any) -> None:
    """What a user with many pipes gets. In a process of its own, which can be ended if both sides wait."""
    program = f"""
import functools, os, subprocess
from pathlib import Path
from workbench.store.git.repository import GitRepository
from workbench.store.payload import blobs
with GitRepository(Path({str(hub.path)!r})) as hub:
    stored = blobs.PackBlobs(hub.path, hub.objects)
    with stored.writer() as writer:
        ids = [writer.blob(bytes([number % 256]) * 20_000) for number in range(600)]
    subprocess.Popen = functools.partial(subprocess.Popen, pipesize=4096)
    print(sum(len(piece) for piece, _ in stored.read(ids * 2)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{2 * 600 * 20_000}\n", done.stderr
