"""The materialise cache: by content, verified, shared, capped, safe between processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from workbench.domain.errors import Corrupt, Refused, WorldError
from workbench.store.payload import cache as cache_module
from workbench.store.payload import kept
from workbench.store.payload.cache import PayloadCache, default_folder

FILES = {"a.bin": b"a" * 1000, "sub/b.txt": b"b" * 500}


def make(repository: Any, root: Path, limit_bytes: int = 1 << 30) -> PayloadCache:
    return PayloadCache(repository.artifacts.pour, root / "cache", limit_bytes=limit_bytes)


@pytest.fixture
def artifact(repository: Any, lab: Any) -> Any:
    return lab.publish(repository, lab.folder("in", FILES))


def test_a_file_is_read_only_and_has_the_bytes(repository: Any, artifact: Any) -> None:
    path = repository.cache.file(artifact, "a.bin")
    assert path.read_bytes() == FILES["a.bin"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    with pytest.raises(Refused, match=r"no file 'x'.*\n.*a\.bin"):
        repository.cache.file(artifact, "x")


def test_the_second_time_costs_nothing(repository: Any, artifact: Any, tmp_path: Path) -> None:
    calls = []

    def pour(*arguments: Any) -> Any:
        calls.append(arguments)
        return repository.artifacts.pour(*arguments)

    cache = PayloadCache(pour, tmp_path / "cache")
    assert cache.file(artifact, "a.bin") == cache.file(artifact, "a.bin")
    assert cache.folder(artifact) == cache.folder(artifact)
    assert [[entry.path for entry in entries] for _, entries, _ in calls] == [["a.bin"], ["sub/b.txt"]]
    cache.close()


def test_two_versions_share_the_bytes_of_what_they_share(repository: Any, artifact: Any, lab: Any) -> None:
    second = lab.publish(repository, lab.folder("in", {"c": b"new"}))
    first, again = (repository.cache.folder(each) for each in (artifact, second))
    assert (first / "a.bin").samefile(again / "a.bin")
    assert not (first / "c").exists()
    assert (again / "c").read_bytes() == b"new"


def test_a_folder_holds_the_payload_and_nothing_else(repository: Any, artifact: Any) -> None:
    folder = repository.cache.folder(artifact)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == {"a.bin", "sub", "sub/b.txt"}
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE((folder / "sub").stat().st_mode) == 0o555


@pytest.mark.parametrize("whole", [False, True])
def test_a_changed_or_lost_file_is_made_again(repository: Any, artifact: Any, whole: bool) -> None:
    def take() -> Path:
        return repository.cache.folder(artifact) / "a.bin" if whole else repository.cache.file(artifact, "a.bin")

    path = take()
    for damage in ("content", "size", "writable", "gone"):
        path.parent.chmod(0o755)
        path.chmod(0o644)
        if damage == "content":
            path.write_bytes(b"x" * 1000)
        elif damage == "size":
            os.truncate(path, 3)
            os.utime(path, ns=(0, kept.MTIME_NS))
        elif damage == "gone":
            path.unlink()
        path = take()
        assert path.read_bytes() == FILES["a.bin"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o444


@pytest.mark.parametrize("what", ["file", "file below", "folder", "folder below", "link", "link for a folder"])
def test_what_somebody_put_into_a_folder_is_not_there_the_next_time(
    repository: Any, artifact: Any, tmp_path: Path, what: str
) -> None:
    """A stage that runs as the cache's owner can; whoever reads the same version next must not see it."""
    folder = repository.cache.folder(artifact)
    before = sorted(folder.rglob("*"))
    for each in (folder, folder / "sub"):
        each.chmod(0o755)
    place = folder / "sub" if what.endswith("below") else folder
    if what.startswith("file"):
        (place / "more").write_text("x")
    elif what.startswith("folder"):
        (place / "more").mkdir()
    elif what == "link":
        (folder / "more").symlink_to("/etc/passwd")
    else:
        (folder / "sub").rename(tmp_path / "sub")
        (folder / "sub").symlink_to(tmp_path / "sub")
    again = repository.cache.folder(artifact)
    assert sorted(again.rglob("*")) == before
    assert not (again / "sub").is_symlink()
    assert repository.cache.folder(artifact).stat().st_ino == again.stat().st_ino  # and it is not made a third time


def test_rot_that_leaves_no_trace_is_found_by_hashing(repository: Any, artifact: Any) -> None:
    path = repository.cache.file(artifact, "a.bin")
    folder = repository.cache.folder(artifact)
    path.chmod(0o644)
    path.write_bytes(b"x" * 1000)
    path.chmod(0o444)
    os.utime(path, ns=(0, kept.MTIME_NS))
    assert repository.cache.verify() == [artifact.manifest.files[0].sha256]
    assert repository.cache.verify() == []
    assert (repository.cache.folder(artifact) / "a.bin").read_bytes() == FILES["a.bin"]
    assert folder.exists()


def test_a_file_from_before_the_machine_started_is_hashed_again(
    repository: Any, artifact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repository.cache.file(artifact, "a.bin")
    path.chmod(0o644)
    path.write_bytes(b"\0" * 1000)  # what a power cut leaves of a file that was not synced
    path.chmod(0o444)
    os.utime(path, ns=(0, kept.MTIME_NS))
    monkeypatch.setattr(cache_module, "boot_time", lambda: time.time() + 1)
    assert repository.cache.file(artifact, "a.bin").read_bytes() == FILES["a.bin"]


def test_a_file_from_the_future_is_hashed_again(
    repository: Any, artifact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine lost power and has no battery: it believes that it is 1970, and that it started then."""
    path = repository.cache.file(artifact, "a.bin")
    path.chmod(0o644)
    path.write_bytes(b"\0" * 1000)
    path.chmod(0o444)
    os.utime(path, ns=(0, kept.MTIME_NS))
    monkeypatch.setattr(cache_module, "boot_time", lambda: 10.0)
    monkeypatch.setattr(kept, "_now", lambda: 100.0)
    assert repository.cache.file(artifact, "a.bin").read_bytes() == FILES["a.bin"]


def test_links_in_the_cache_are_not_followed(repository: Any, artifact: Any, tmp_path: Path) -> None:
    cache = make(repository, tmp_path)
    path = cache.file(artifact, "a.bin")
    (tmp_path / "evil").write_bytes(b"e" * 1000)
    path.unlink()
    path.symlink_to(tmp_path / "evil")
    assert cache.file(artifact, "a.bin").read_bytes() == FILES["a.bin"]
    assert not path.is_symlink()
    cache.close()
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    with pytest.raises(Refused, match="symbolic link"):
        PayloadCache(repository.artifacts.pour, tmp_path / "link").file(artifact, "a.bin")


def test_the_least_recently_used_goes_first_and_pinned_stays(repository: Any, lab: Any, tmp_path: Path) -> None:
    cache = make(repository, tmp_path)
    made = [lab.publish(repository, lab.folder(f"v{n}", {"f": bytes([n]) * 1000})) for n in range(4)]
    paths = [cache.file(each, "f") for each in made]
    cache.close()
    for age, n in enumerate((2, 0, 1, 3)):  # 2 was used longest ago
        os.utime(tmp_path / "cache" / "leases" / made[n].manifest.files[0].sha256, (age, age))
    cache.pin(made[0])
    assert cache.trim(2500) == 2000
    assert [path.exists() for path in paths] == [True, False, False, True]
    cache.pin(made[0], False)
    assert cache.trim(0) == 2000


def test_what_this_or_another_process_uses_is_not_dropped(repository: Any, artifact: Any, tmp_path: Path) -> None:
    mine, other = make(repository, tmp_path), make(repository, tmp_path)
    path, folder = mine.file(artifact, "a.bin"), mine.folder(artifact)
    assert mine.trim(0) == other.trim(0) == 0
    assert path.exists()
    mine.close()
    assert other.trim(0) == 1500
    assert not path.exists()
    assert not folder.exists()
    other.close()


def test_the_cap_is_kept_when_something_new_comes(repository: Any, lab: Any, tmp_path: Path) -> None:
    cache = make(repository, tmp_path, limit_bytes=2500)
    for n in range(5):
        cache.file(lab.publish(repository, lab.folder(f"v{n}", {"f": bytes([n]) * 1000})), "f")
        cache.close()
    files = list((tmp_path / "cache" / "files").glob("??/*"))
    assert sum(path.stat().st_size for path in files) <= 3000


def test_files_that_were_lent_keep_to_the_cap_and_leave_no_descriptor(
    repository: Any, lab: Any, tmp_path: Path
) -> None:
    cache = make(repository, tmp_path, limit_bytes=2500)
    made = lab.publish(repository, lab.folder("in", {f"{n}": bytes([n]) * 1000 for n in range(20)}))
    before = len(os.listdir("/proc/self/fd"))
    for n in range(20):
        with cache.lent(made, f"{n}") as path, cache.lent(made, f"{n}") as again:
            assert path.read_bytes() == again.read_bytes() == bytes([n]) * 1000
            assert cache.trim(0) <= 2000
            assert path.exists()
    assert len(os.listdir("/proc/self/fd")) == before
    assert cache.trim(0) == 1000


def test_a_file_that_is_lent_twice_or_kept_stays_for_the_other(repository: Any, artifact: Any, tmp_path: Path) -> None:
    cache = make(repository, tmp_path)
    with cache.lent(artifact, "a.bin") as path:
        with cache.lent(artifact, "a.bin"):
            pass
        assert cache.trim(0) == 0
        cache.file(artifact, "a.bin")
    assert cache.trim(0) == 0
    with cache.lent(artifact, "sub/b.txt") as other:
        cache.close()
    assert cache.trim(0) == 1500
    assert not path.exists()
    assert not other.exists()
    with pytest.raises(Refused), cache.lent(artifact, "nowhere"):
        pass


def test_wrong_bytes_never_reach_the_cache(repository: Any, artifact: Any, tmp_path: Path) -> None:
    def pour(artifact: Any, entries: Any, open_file: Any) -> Any:
        open_file(entries[0]).write(b"half")
        raise Corrupt("a.bin: size or sha256 differ from the manifest")

    cache = PayloadCache(pour, tmp_path / "cache")
    for take in (lambda: cache.file(artifact, "a.bin"), lambda: cache.folder(artifact)):
        with pytest.raises(Corrupt):
            take()
    assert [path for path in (tmp_path / "cache" / "files").rglob("*") if path.is_file()] == []
    assert list((tmp_path / "cache" / "drafts").iterdir()) == []
    cache.close()


def test_processes_may_fill_and_trim_one_cache_at_once(hub: Any, lab: Any, tmp_path: Path) -> None:
    made = [lab.publish(hub, lab.folder(f"v{n}", {"f": bytes([n]) * 4000, "g": b"shared"})) for n in range(4)]
    program = """
import random, sys
from pathlib import Path
from workbench.domain.refs import ArtifactTag
from workbench.store.git.repository import GitRepository
hub, seed, *tags = sys.argv[1:]
pick = random.Random(int(seed))
with GitRepository(Path(hub)) as repository:
    for _ in range(25):
        artifact = repository.artifacts.get(ArtifactTag.parse(pick.choice(tags)))
        paths = [repository.cache.file(artifact, "f"), repository.cache.folder(artifact) / "f"]
        assert all(len(set(path.read_bytes())) == 1 for path in paths)
        if pick.random() < 0.5:
            repository.cache.close()
        repository.cache.trim(5000)
"""
    command = [sys.executable, "-c", program, str(hub.path)]
    tags = [each.tag.short for each in made]
    running = [subprocess.Popen([*command, str(n), *tags], stderr=subprocess.PIPE, text=True) for n in range(3)]
    for process in running:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    assert hub.cache.verify() == []


def test_an_unusable_folder_says_what_to_do(repository: Any, artifact: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WorldError, match="WORKBENCH_CACHE_DIR"):
        PayloadCache(repository.artifacts.pour, tmp_path / "file" / "cache").file(artifact, "a.bin")


def test_the_folder_is_the_setting_or_the_xdg_place() -> None:
    assert default_folder({"WORKBENCH_CACHE_DIR": "/a", "HOME": "/h"}) == Path("/a")
    assert default_folder({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/workbench/payload")
    assert default_folder({"HOME": "/h"}) == Path("/h/.cache/workbench/payload")
    assert default_folder({"HOME": "/h", "XDG_CACHE_HOME": "not/absolute"}) is None
