"""Folders of this machine as sources."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from workbench.domain.errors import NotFound, UserError, WorldError
from workbench.fetch.limits import Limits
from workbench.fetch.path import PathFetcher
from workbench.ports.fetch import Fetched, Source

WANTED = ("*.rs", "LICENSE*")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "code"
    (root / "src" / "deep").mkdir(parents=True)
    (root / "src" / "lib.rs").write_bytes(b"pub fn a() {}\n")
    (root / "src" / "deep" / "b.rs").write_bytes(b"pub fn b() {}\n")
    (root / "LICENSE").write_bytes(b"MIT\n")
    (root / "notes.txt").write_bytes(b"mine\n")
    return root


def fetch(root: Path, *, sha256: str = "", limits: Limits | None = None, into: str = "into") -> Fetched:
    folder = root.parent / into
    folder.mkdir()
    fetcher = PathFetcher(limits) if limits else PathFetcher()
    return fetcher.fetch(Source("path", "code", "", str(root), sha256), folder, wanted=WANTED)


def test_wanted_files_are_copied_and_their_digest_can_be_computed_by_anyone(root: Path):
    done = fetch(root)
    assert done.files == ("LICENSE", "src/deep/b.rs", "src/lib.rs")
    lines = [f"{hashlib.sha256((root / path).read_bytes()).hexdigest()}  {path}\n" for path in done.files]
    assert done.provenance["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert done.provenance["size"] == sum((root / path).stat().st_size for path in done.files)
    assert fetch(root, sha256=str(done.provenance["sha256"]), into="again").files == done.files


def test_a_folder_that_has_changed_does_not_meet_its_pin(root: Path):
    pin = str(fetch(root).provenance["sha256"])
    (root / "src" / "lib.rs").write_bytes(b"pub fn other() {}\n")
    with pytest.raises(UserError, match=f"but {pin} was expected"):
        fetch(root, sha256=pin, into="again")


def test_an_unwanted_file_does_not_change_the_digest(root: Path):
    before = fetch(root).provenance
    (root / "more.txt").write_bytes(b"x")
    assert fetch(root, into="again").provenance == before


@pytest.mark.parametrize("location", ["", "/nonexistent/code", "\0"])
def test_a_folder_that_is_not_there_is_not_found(root: Path, location: str):
    with pytest.raises(NotFound, match="there is no folder"):
        PathFetcher().fetch(Source("path", "code", "", location), root, wanted=WANTED)


def test_a_file_is_no_folder(root: Path):
    with pytest.raises(NotFound):
        PathFetcher().fetch(Source("path", "code", "", str(root / "LICENSE")), root, wanted=WANTED)


def test_links_pipes_and_hostile_names_are_left_out_with_a_reason(root: Path):
    (root / "src" / "link.rs").symlink_to("/etc/passwd")
    (root / "linked").symlink_to(root.parent)
    os.mkfifo(root / "src" / "pipe.rs")
    (root / "src" / "a\nb.rs").write_bytes(b"x")
    (root / "src" / "aux.rs").write_bytes(b"x")
    (root / "src" / "cafe\u0301.rs").write_bytes(b"x")
    (root / "src" / "LIB.rs").write_bytes(b"pub fn a() {}\n")
    Path(os.fsdecode(os.fsencode(root / "src") + b"/\xff.rs")).write_bytes(b"x")
    done = fetch(root)
    assert [(row.path, row.rule) for row in done.refusals] == [
        ("linked", "link"),
        ("src/\\udcff.rs", "name"),
        ("src/a\\nb.rs", "control"),
        ("src/aux.rs", "name"),
        ("src/cafe\u0301.rs", "form"),
        ("src/lib.rs", "case"),
        ("src/link.rs", "link"),
        ("src/pipe.rs", "fifo"),
    ]
    assert done.files == ("LICENSE", "src/LIB.rs", "src/deep/b.rs")


def test_other_version_control_is_not_looked_into(root: Path):
    for name in (".git", ".hg", ".svn"):
        (root / name).mkdir()
        (root / name / "hook.rs").write_bytes(b"x")
    assert fetch(root).files == ("LICENSE", "src/deep/b.rs", "src/lib.rs")


@pytest.mark.parametrize(
    ("limits", "rule"),
    [(Limits(paths=3), "count"), (Limits(depth=1), "depth"), (Limits(kept_bytes=20), "size")],
    ids=["too many", "too deep", "too much"],
)
def test_a_folder_beyond_the_limits_is_refused_whole_with_a_line_and_nothing_is_kept(
    root: Path, limits: Limits, rule: str
):
    done = fetch(root, limits=limits)
    assert done.files == ()
    assert done.refusals[-1].path == ""
    assert done.refusals[-1].rule == rule
    assert not [path for path in (root.parent / "into").rglob("*") if path.is_file()]


def test_a_file_beyond_the_limit_is_left_out_alone(root: Path):
    (root / "src" / "big.rs").write_bytes(b"x" * 100)
    done = fetch(root, limits=Limits(member_bytes=50))
    assert [(row.path, row.rule) for row in done.refusals] == [("src/big.rs", "size")]
    assert len(done.files) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("what", ["src", "src/lib.rs"])
def test_what_cannot_be_read_ends_the_crawl_by_name(root: Path, what: str):
    (root / what).chmod(0)
    try:
        with pytest.raises(UserError, match=r"src.*cannot be read: Permission denied"):
            fetch(root)
    finally:
        (root / what).chmod(0o755)


def test_a_disk_that_refuses_ends_the_crawl_by_name(root: Path):
    into = root.parent / "into"
    into.mkdir()
    (into / "src").write_bytes(b"in the way")
    with pytest.raises(WorldError, match=r"code: src cannot be read: Not a directory"):
        PathFetcher().fetch(Source("path", "code", "", str(root)), into, wanted=WANTED)
