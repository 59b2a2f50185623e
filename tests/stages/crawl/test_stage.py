"""The crawl: what it lays out, what it writes down, and what hostile sources do to it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from workbench.clock.system import SystemClock
from workbench.domain.errors import NotFound, UserError
from workbench.domain.manifest import Manifest
from workbench.domain.refs import Kind
from workbench.stages.crawl.spec import SPEC
from workbench.store.git.repository import GitRepository


def rows(payload: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (payload / name).read_text().splitlines()]


def test_sources_are_laid_out_with_who_they_are(crawl):
    payload, result = crawl.run(crawl.source("beta"), crawl.source("alpha"))
    assert [row["package"] for row in rows(payload, "packages.jsonl")] == ["alpha", "beta"]
    first = rows(payload, "packages.jsonl")[0]
    assert (first["kind"], first["license"], first["files"], first["license_files"]) == ("path", "MIT", 3, ["LICENSE"])
    assert (payload / "packages/alpha/src/lib.rs").read_bytes() == b"pub fn works() {}\n"
    assert dict(result.counts) == {"packages": 2, "files": 6, "rust_files": 2, "rust_bytes": 36, "refusals": 0}


@pytest.mark.parametrize(
    "name",
    ["LICENSE-MIT", "License.txt", "licence", "Copying", "NOTICE.md", "notice", "unlicense", "Copyright", "COPYRIGHT"],
)
def test_a_licence_text_is_kept_however_its_name_is_written(crawl, tree, name: str):
    files = {"src/lib.rs": b"fn a() {}\n", f"below/{name}": b"the terms\n", "below/terms.txt": b"x"}
    payload, _ = crawl.run(crawl.source("a", files))
    assert tree(payload)[f"packages/a/below/{name}"] == b"the terms\n"
    assert "packages/a/below/terms.txt" not in tree(payload)
    assert rows(payload, "packages.jsonl")[0]["license_files"] == [f"below/{name}"]


def test_the_payload_does_not_depend_on_the_order_of_the_list_or_the_number_of_workers(crawl, tree):
    sources = [crawl.source(name) for name in ("d", "b", "a", "c", "e", "f")]
    one, _ = crawl.run(*sources, workers=1)
    two, _ = crawl.run(*reversed(sources), workers=8)
    assert tree(one) == tree(two)


def test_recorded_bytes_give_the_same_payload_when_the_sources_are_gone(crawl, tree):
    bad = crawl.source("bad", {"src/aux.rs": b"x", "src/a.rs": b"fn a() {}\n"})
    sources = [crawl.source("alpha"), bad]
    first, result = crawl.run(*sources)
    shutil.rmtree(crawl.root / "sources")
    again, replayed = crawl.run(*sources, recorded=first)
    assert tree(again) == tree(first)
    assert replayed == result


def test_the_other_kinds_are_replayed_too(crawl, tree):
    repo = crawl.root / "repo"
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    (repo / "lib.rs").write_bytes(b"fn a() {}\n")
    who = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    subprocess.run(["git", "-C", str(repo), "add", "."], check=True)
    subprocess.run(["git", "-C", str(repo), *who, "commit", "-qm", "x"], check=True)
    commit = subprocess.check_output(["git", "-C", str(repo), "rev-parse", "HEAD"], text=True).strip()
    source = {"kind": "git", "name": "repo", "version": commit, "location": str(repo)}
    first, _ = crawl.run(source)
    shutil.rmtree(repo)
    again, _ = crawl.run(source, recorded=first)
    assert tree(again) == tree(first)
    assert rows(first, "packages.jsonl")[0]["commit"] == commit


def test_a_source_that_was_not_recorded_is_not_found(crawl):
    first, _ = crawl.run(crawl.source("alpha"))
    with pytest.raises(NotFound, match="the recorded crawl has no path beta"):
        crawl.run(crawl.source("beta"), recorded=first)


def test_another_pin_than_the_recorded_one_is_refused(crawl):
    source = crawl.source("alpha")
    first, _ = crawl.run(source)
    with pytest.raises(UserError, match=r"recorded with sha256 \w+, not a{64}"):
        crawl.run({**source, "sha256": "a" * 64}, recorded=first)


HOSTILE = {
    "a case collision": (lambda f: (f / "src/LIB.rs").write_bytes(b"x"), "case"),
    "another Unicode form": (lambda f: (f / "src/e\u0301.rs").write_bytes(b"x"), "form"),
    "a control character": (lambda f: (f / "src/a\x1b[2J.rs").write_bytes(b"x"), "control"),
    "a newline": (lambda f: (f / "src/a\nb.rs").write_bytes(b"x"), "control"),
    "a direction mark": (lambda f: (f / "src/\u202esr.rs").write_bytes(b"x"), "control"),
    "a device": (lambda f: (f / "src/com0.rs").write_bytes(b"x"), "name"),
    "a backslash": (lambda f: (f / "src/a\\b.rs").write_bytes(b"x"), "name"),
    "no UTF-8": (lambda f: open(bytes(f) + b"/src/\xff.rs", "wb").close(), "name"),
    "a private character": (lambda f: (f / "src/\ue000.rs").write_bytes(b"x"), "name"),
    "a command": (lambda f: (f / "src/$(x).rs").write_bytes(b"x"), "name"),
    "a short Git name": (lambda f: ((f / "gi3abc~1").mkdir(), (f / "gi3abc~1/x.rs").write_bytes(b"x")), "name"),
    "a link out": (lambda f: (f / "src/l.rs").symlink_to("/etc/passwd"), "link"),
    "a pipe": (lambda f: os.mkfifo(f / "src/p.rs"), "fifo"),
    "an oversize file": (lambda f: (f / "src/big.rs").write_bytes(b"/" * (4 * 2**20 + 1)), "size"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_a_line_in_the_log_and_the_rest_can_be_published(crawl, what: str, tmp_path: Path):
    make, rule = HOSTILE[what]
    source = crawl.source("hostile")
    make(Path(source["location"]))
    payload, _ = crawl.run(source, crawl.source("good"))
    [refusal] = rows(payload, "refusals.jsonl")
    assert (refusal["package"], refusal["rule"]) == ("hostile", rule)
    assert any(f": {rule}" in line and line.startswith("  refused ") for line in crawl.said)
    assert all(line.isprintable() for line in crawl.said)
    assert [row["files"] for row in rows(payload, "packages.jsonl")] == [3, 3]


def test_what_a_crawl_of_hostile_sources_leaves_is_taken_by_the_store(crawl, tmp_path: Path):
    sources = []
    for number, (make, _) in enumerate(HOSTILE.values()):
        sources.append(crawl.source(f"hostile-{number}"))
        make(Path(sources[-1]["location"]))
    payload, _ = crawl.run(*sources)
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "store.git")], check=True)
    repository = GitRepository(tmp_path / "store.git", clock=SystemClock())
    staged = repository.artifacts.stage(payload, Manifest(Kind.RAW, "x"))
    assert len(staged.manifest.files) == 2 + 3 * len(sources)


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (lambda: b"<html>no archive</html>" * 40, "corrupt"),
        (None, "bomb"),
        (lambda: _tar("../evil.rs"), "parent"),
        (lambda: _tar("/evil.rs"), "absolute"),
    ],
    ids=["no archive", "bomb", "parent", "absolute"],
)
def test_a_hostile_archive_is_a_line_in_the_log_and_the_others_are_crawled(crawl, monkeypatch, build, rule: str):
    pages = crawl.root / "index" / "evil"
    pages.mkdir(parents=True)
    (pages / "evil-1.0.tar.gz").write_bytes(build() if build else _bomb())
    (pages / "index.html").write_text('<a href="evil-1.0.tar.gz">evil-1.0.tar.gz</a>')
    monkeypatch.setenv("PIP_INDEX_URL", (crawl.root / "index").as_uri())
    monkeypatch.setenv("XDG_CACHE_HOME", str(crawl.root / "cache"))
    payload, _ = crawl.run({"kind": "sdist", "name": "evil", "version": "1.0"}, crawl.source("good"))
    refusals = rows(payload, "refusals.jsonl")
    assert rule in [row["rule"] for row in refusals]
    assert any(line.startswith("  refused ") and rule in line for line in crawl.said)
    evil, good = rows(payload, "packages.jsonl")
    assert (evil["package"], evil["files"], good["files"]) == ("evil-1.0", 0, 3)
    assert not (payload / "packages" / "evil-1.0").exists()


def _tar(name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = 3
        archive.addfile(info, io.BytesIO(b"fn\n"))
    return out.getvalue()


def _bomb() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo("x/zeros.bin")
        info.size = 40 << 20
        archive.addfile(info, io.BytesIO(bytes(40 << 20)))
    return out.getvalue()


def test_a_crawl_without_a_rust_file_fails_and_says_where_to_look(crawl):
    with pytest.raises(UserError, match="no source holds a Rust file"):
        crawl.run(crawl.source("texts", {"README.md": b"x", "LICENSE": b"MIT"}))


def test_a_source_that_is_missing_ends_the_crawl(crawl):
    with pytest.raises(NotFound, match="there is no folder"):
        crawl.run(crawl.source("good"), {"kind": "path", "name": "gone", "location": str(crawl.root / "gone")})


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"kind": "svn", "name": "x"}, "sdist"),
        ({"kind": "sdist", "name": "x"}, "needs an exact version"),
        ({"kind": "git", "name": "x", "version": "a" * 40}, "needs a location"),
        ({"kind": "path", "name": "x"}, "needs a location"),
        ({"kind": "path", "name": "../x", "location": "/"}, "pattern"),
        ({"kind": "path", "name": "x", "location": "/", "sha256": "abc"}, "pattern"),
        ({"kind": "path", "name": "x", "location": "/", "tag": "v1"}, "tag"),
        ({"kind": "path", "name": "aux", "location": "/"}, "device name"),
        ({"kind": "path", "name": "x.", "location": "/"}, "edge"),
        ({"kind": "path", "name": "x\n", "location": "/"}, "pattern"),
    ],
)
def test_a_wrong_line_of_the_source_list_is_refused_before_anything_runs(source: dict[str, str], told: str):
    with pytest.raises(UserError, match=told):
        SPEC.resolve(1, {"sources": [source]})


def test_a_source_is_listed_once_whatever_its_case():
    one = {"kind": "path", "name": "code", "location": "/"}
    with pytest.raises(UserError, match="code is listed twice"):
        SPEC.resolve(1, {"sources": [one, {**one, "name": "Code"}]})
    with pytest.raises(UserError, match="sources"):
        SPEC.resolve(1, {"sources": []})
