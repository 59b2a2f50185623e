"""Ordinary repositories, made by git itself, by path and by file URL."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from workbench.domain.errors import NotFound, WorldError
from workbench.fetch.fetcher import SourceFetcher
from workbench.fetch.git import GitFetcher
from workbench.ports.fetch import Fetched, Source

WANTED = ("*.rs", "Cargo.toml", "LICENSE*")
POINTER = b"version https://git-lfs.example/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"


class Repo:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *argv: str) -> str:
        names = {f"GIT_{who}_{what}": "a@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        env = {**os.environ, **names, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        command = ["git", "-C", str(self.path), "-c", "protocol.file.allow=always", *argv]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout.strip()

    def commit(self, **files: bytes) -> str:
        for path, data in files.items():
            (self.path / path).parent.mkdir(parents=True, exist_ok=True)
            (self.path / path).write_bytes(data)
        self.git("add", "-A")
        self.git("commit", "-qm", "a change")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "code")


def fetch(repo: Repo, commit: str, *, location: str = "", into: str = "into") -> tuple[Fetched, Path]:
    folder = repo.path.parent / into
    folder.mkdir()
    source = Source("git", "code", commit, location or str(repo.path))
    return GitFetcher().fetch(source, folder, wanted=WANTED), folder


@pytest.mark.parametrize("by", ["path", "URL"])
def test_a_commit_is_brought_as_it_was(repo: Repo, by: str):
    first = repo.commit(**{"src/lib.rs": b"fn a() {}\r\n", "LICENSE": b"MIT\n", "notes.md": b"x"})
    repo.commit(**{"src/lib.rs": b"fn later() {}\n"})
    done, into = fetch(repo, first, location=repo.path.as_uri() if by == "URL" else "")
    assert done.files == ("LICENSE", "src/lib.rs")
    assert (into / "src/lib.rs").read_bytes() == b"fn a() {}\r\n"
    assert done.provenance == {"commit": first, "size": 15}
    assert done.refusals == ()


def test_a_commit_that_no_branch_shows_any_more_is_not_guessed(repo: Repo):
    repo.commit(**{"a.rs": b"fn a() {}\n"})
    with pytest.raises((NotFound, WorldError), match="code"):
        fetch(repo, "1" * 40)
    assert not any((repo.path.parent / "into").iterdir())


def test_a_commit_of_an_older_tag_is_found(repo: Repo):
    first = repo.commit(**{"a.rs": b"fn a() {}\n"})
    repo.git("tag", "v1")
    repo.git("checkout", "-q", "--orphan", "other")
    repo.commit(**{"a.rs": b"fn other() {}\n"})
    repo.git("branch", "-qD", "main")
    _, into = fetch(repo, first)
    assert (into / "a.rs").read_bytes() == b"fn a() {}\n"


def test_a_submodule_is_skipped_with_a_line(repo: Repo):
    other = Repo(repo.path.parent / "other")
    other.commit(**{"b.rs": b"fn b() {}\n"})
    repo.commit(**{"a.rs": b"fn a() {}\n"})
    repo.git("submodule", "add", "-q", str(other.path), "deps/other")
    done, into = fetch(repo, repo.commit())
    assert done.files == ("a.rs",)
    assert ("deps/other", "submodule") in [(row.path, row.rule) for row in done.refusals]
    assert not (into / "deps").exists()


def test_a_pointer_to_large_file_storage_is_taken_as_the_text_it_is_and_nothing_is_asked_for(repo: Repo):
    repo.commit(**{"a.rs": b"fn a() {}\n"})
    commit = repo.commit(**{"big.rs": POINTER, ".gitattributes": b"big.rs filter=lfs diff=lfs merge=lfs -text\n"})
    done, into = fetch(repo, commit)
    assert (into / "big.rs").read_bytes() == POINTER
    assert done.files == ("a.rs", "big.rs")


def test_a_worktree_and_a_bare_clone_give_the_same(repo: Repo):
    commit = repo.commit(**{"a.rs": b"fn a() {}\n", "d/b.rs": b"fn b() {}\n"})
    bare = repo.path.parent / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(repo.path), str(bare)], check=True)
    one, _ = fetch(repo, commit)
    two, _ = fetch(repo, commit, location=str(bare), into="again")
    assert (one.files, one.refusals, one.provenance) == (two.files, two.refusals, two.provenance)


def test_a_repository_of_sha256_is_told_to_be_one(repo: Repo, tmp_path: Path):
    path = tmp_path / "new"
    subprocess.run(["git", "init", "-q", "--object-format=sha256", str(path)], check=True)
    with pytest.raises((NotFound, WorldError), match="code"):
        fetch(repo, "1" * 64, location=str(path))


def test_a_place_without_a_repository_is_an_error(repo: Repo, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorldError, match="git cannot fetch"):
        fetch(repo, "1" * 40, location=str(tmp_path / "empty"))
    with pytest.raises(NotFound, match="no repository at"):
        fetch(repo, "1" * 40, location=str(tmp_path / "nothing"), into="again")


def test_an_executable_file_is_taken_without_its_mode(repo: Repo, file_mode: int):
    repo.commit(**{"a.rs": b"fn a() {}\n"})
    (repo.path / "a.rs").chmod(0o755)
    done, into = fetch(repo, repo.commit())
    assert done.files == ("a.rs",)
    assert (into / "a.rs").stat().st_mode & 0o777 == file_mode


def test_each_kind_of_source_finds_its_fetcher_and_another_is_refused(repo: Repo, tmp_path: Path):
    commit = repo.commit(**{"a.rs": b"fn a() {}\n"})
    for kind, version in (("git", commit), ("path", "")):
        (tmp_path / kind).mkdir()
        source = Source(kind, "code", version, str(repo.path))
        assert SourceFetcher(tmp_path / "cache").fetch(source, tmp_path / kind, wanted=WANTED).files == ("a.rs",)
    with pytest.raises(Exception, match="did you mean 'sdist'"):
        SourceFetcher().fetch(Source("sdst", "x"), tmp_path, wanted=WANTED)
