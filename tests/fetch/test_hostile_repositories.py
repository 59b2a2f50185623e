"""Hostile Git repositories, built object by object: nothing they bring is obeyed or walked for ever."""

from __future__ import annotations

import hashlib
import os
import resource
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from workbench.domain.errors import NotFound, UserError, WorldError
from workbench.fetch.git import GitFetcher
from workbench.ports.fetch import Fetched, Source

GOOD = b"fn good() {}\n"
EVIL = b"fn evil() {}\n"
FILE, LINK, FOLDER, GITLINK = b"100644", b"120000", b"40000", b"160000"
MIB = 1 << 20
WANTED = ("*.rs",)


@dataclass
class Repo:
    """A bare repository to which objects are written as they are, checked by nobody."""

    path: Path

    def __post_init__(self) -> None:
        subprocess.run(["git", "init", "-q", "--bare", str(self.path)], check=True)
        (self.path / "config").open("a").write("[uploadpack]\n\tallowAnySHA1InWant = true\n")

    def add(self, kind: bytes, data: bytes) -> bytes:
        stored = kind + b" %d\0" % len(data) + data
        id = hashlib.sha1(stored).hexdigest()
        place = self.path / "objects" / id[:2] / id[2:]
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(zlib.compress(stored, 1))
        return bytes.fromhex(id)

    def blob(self, data: bytes = EVIL) -> bytes:
        return self.add(b"blob", data)

    def tree(self, *entries: tuple[bytes, bytes, bytes], good: bool = True) -> bytes:
        """``(mode, name, id)`` in Git's order, with a good file among them."""
        rows = [*entries, (FILE, b"good.rs", self.blob(GOOD))] if good else list(entries)
        rows.sort(key=lambda row: row[1] + (b"/" if row[0] == FOLDER else b""))
        return self.raw_tree(*rows)

    def raw_tree(self, *entries: tuple[bytes, bytes, bytes]) -> bytes:
        return self.add(b"tree", b"".join(mode + b" " + name + b"\0" + id for mode, name, id in entries))

    def commit(self, tree: bytes, *, message: bytes = b"x", who: bytes = b"A <a@b.c> 1 +0000") -> str:
        lines = b"tree %s\nauthor %s\ncommitter %s\n\n%s\n" % (tree.hex().encode(), who, who, message)
        id = self.add(b"commit", lines).hex()
        (self.path / "refs" / "heads" / "main").write_text(id + "\n")
        return id


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "hostile.git")


def fetch(repo: Repo, commit: str, tmp_path: Path) -> tuple[Fetched, Path, float]:
    """What was fetched, the folder, and the processor time of git and of us."""
    into = tmp_path / "into"
    into.mkdir()
    before = _cpu_s()
    done = GitFetcher().fetch(Source("git", "hostile", commit, str(repo.path)), into, wanted=WANTED)
    return done, into, _cpu_s() - before


def _cpu_s() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def below(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def named(name: bytes, mode: bytes = FILE) -> Callable[[Repo], bytes]:
    return lambda repo: repo.tree((mode, name, repo.blob()))


def linked(name: bytes, target: bytes) -> Callable[[Repo], bytes]:
    return lambda repo: repo.tree((LINK, name, repo.blob(target)))


# One path is left out, the good one is kept; or git's own check refuses all of it ("fsck").
PATHS: dict[str, tuple[Callable[[Repo], bytes], str]] = {
    "Git folder": (lambda r: r.tree((FOLDER, b".git", r.tree())), "fsck"),
    "Git folder in capitals": (lambda r: r.tree((FOLDER, b".GIT", r.tree())), "fsck"),
    "Git folder by its short name": (lambda r: r.tree((FOLDER, b"git~1", r.tree())), "fsck"),
    "Git folder with a stream": (lambda r: r.tree((FOLDER, b".git::$INDEX_ALLOCATION", r.tree())), "fsck"),
    "Git folder with an ignored character": (lambda r: r.tree((FOLDER, ".g\u200cit".encode(), r.tree())), "fsck"),
    "parent": (lambda r: r.tree((FOLDER, b"..", r.tree())), "fsck"),
    "dot": (lambda r: r.tree((FOLDER, b".", r.tree())), "fsck"),
    "slash in a name": (named(b"a/../../evil.rs"), "fsck"),
    "twice the same name": (
        lambda r: r.raw_tree((FILE, b"a.rs", r.blob()), (FILE, b"a.rs", r.blob(GOOD))), "fsck"),
    "not in order": (lambda r: r.raw_tree((FILE, b"b.rs", r.blob()), (FILE, b"a.rs", r.blob(GOOD))), "fsck"),
    "modules file that is a link": (linked(b".gitmodules", b"/etc/passwd"), "fsck"),
    "modules with an option as URL": (
        lambda r: r.tree((FILE, b".gitmodules", r.blob(b'[submodule "a"]\n\tpath = a\n\turl = -u./evil\n'))), "fsck"),
    "modules that update by a command": (
        lambda r: r.tree((FILE, b".gitmodules",
                          r.blob(b'[submodule "a"]\n\tpath = a\n\turl = a\n\tupdate = !touch evil\n'))), "fsck"),
    "link to passwd": (linked(b"l.rs", b"/etc/passwd"), "link"),
    "link that leaves": (linked(b"l.rs", b"../../../../etc/passwd"), "link"),
    "link into the Git folder": (linked(b"l.rs", b".git/hooks"), "link"),
    "link to itself": (linked(b"l.rs", b"l.rs"), "link"),
    "link of five thousand characters": (linked(b"l.rs", b"a/" * 2500), "link"),
    "attributes file that is a link": (linked(b".gitattributes", b"/etc/passwd"), "link"),
    "submodule": (lambda r: r.tree((GITLINK, b"sub.rs", bytes(range(20)))), "submodule"),
    "backslashes": (named(b"a\\..\\..\\b.rs"), "name"),
    "device name": (named(b"aux.rs"), "name"),
    "stream of a file": (named(b"ab:c.rs"), "name"),
    "newline": (named(b"a\nb.rs"), "control"),
    "carriage return": (named(b"a\r.rs"), "control"),
    "escape": (named(b"\x1b]0;evil\x07.rs"), "control"),
    "bidirectional override": (named("\u202esr.evil.rs".encode()), "control"),
    "not UTF-8": (named(b"\xff\xfe.rs"), "name"),
    "option": (named(b"-rf.rs"), "name"),
    "long name": (named(b"a" * 300 + b".rs"), "name"),
    "name of five thousand characters": (named(b"a" * 5000 + b".rs"), "name"),
    "trailing dot": (lambda r: r.tree((FOLDER, b"a.", r.tree())), "name"),
    "case collision": (lambda r: r.tree((FILE, b"GOOD.rs", r.blob(GOOD))), "case"),
    "case collision of folders": (lambda r: r.tree((FOLDER, b"d", r.tree()), (FOLDER, b"D", r.tree())), "case"),
    "Unicode form collision": (
        lambda r: r.tree((FILE, "é.rs".encode(), r.blob(GOOD)), (FILE, "e\u0301.rs".encode(), r.blob())), "form"),
    "set-user-id": (named(b"suid.rs", b"104755"), "mode"),
    "unknown mode": (named(b"odd.rs", b"100000"), "mode"),
    "oversize": (lambda r: r.tree((FILE, b"big.rs", r.blob(b"/" * (5 * MIB)))), "size"),
    "bomb of zeros": (lambda r: r.tree((FILE, b"zeros.rs", r.blob(b"\0" * (64 * MIB)))), "size"),
}  # fmt: skip


def tree_bomb(repo: Repo) -> bytes:
    tree = repo.tree()
    for _ in range(10):
        tree = repo.raw_tree(*[(FOLDER, b"%d" % number, tree) for number in range(10)])
    return tree


def deep(repo: Repo, depth: int = 500) -> bytes:
    tree = repo.tree()
    for _ in range(depth):
        tree = repo.raw_tree((FOLDER, b"d", tree))
    return tree


def wide(repo: Repo) -> bytes:
    blob = repo.blob()
    return repo.raw_tree(*[(FILE, b"f%06d.rs" % number, blob) for number in range(30_000)])


def wide_and_long(repo: Repo) -> bytes:
    blob = repo.blob()
    return repo.raw_tree(*[(FILE, b"%06d" % number + b"a" * 400, blob) for number in range(12_000)])


WHOLE: dict[str, tuple[Callable[[Repo], bytes], str]] = {
    "tree that names itself ten times over": (tree_bomb, "count"),
    "tree of five hundred folders": (deep, "depth"),
    "folder of thirty thousand files": (wide, "count"),
    "wide and long list": (wide_and_long, "count"),
}  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_a_hostile_path_is_left_out(name: str, repo: Repo, tmp_path: Path, slowness: float) -> None:
    build, rule = PATHS[name]
    done, into, cpu_s = fetch(repo, repo.commit(build(repo)), tmp_path)
    assert rule in [refusal.rule for refusal in done.refusals]
    assert all(refusal.path.isprintable() and refusal.detail.isprintable() for refusal in done.refusals)
    assert sorted(done.files) == below(into)
    if rule == "fsck":
        assert done.files == ()
    else:
        assert GOOD in [(into / path).read_bytes() for path in below(into)]
    assert EVIL not in [(into / path).read_bytes() for path in below(into)]
    assert all(stat.S_ISREG((into / path).lstat().st_mode) for path in below(into))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.git", "into"]
    assert cpu_s < 1.0 * slowness


@pytest.mark.parametrize("name", WHOLE)
def test_a_hostile_tree_is_refused_before_it_is_walked(name: str, repo: Repo, tmp_path: Path, slowness: float) -> None:
    build, rule = WHOLE[name]
    done, into, cpu_s = fetch(repo, repo.commit(build(repo)), tmp_path)
    assert done.files == ()
    assert done.refusals[-1].rule in (rule, "fsck")
    assert below(into) == []
    assert cpu_s < 1.5 * slowness


def test_the_largest_of_git_stays_within_its_memory(repo: Repo, tmp_path: Path) -> None:
    commit = repo.commit(PATHS["bomb of zeros"][0](repo))
    (tmp_path / "into").mkdir()
    program = (  # in a process of its own: what rusage tells of a child begins with the peak of the one that forks it
        "import re, resource, sys; from pathlib import Path; from workbench.fetch.git import GitFetcher\n"
        "from workbench.ports.fetch import Source; source = Source('git', 'hostile', sys.argv[1], sys.argv[2])\n"
        "GitFetcher().fetch(source, Path(sys.argv[3]), wanted=('*.rs',))\n"
        "own = int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))\n"
    )
    arguments = [commit, str(repo.path), str(tmp_path / "into")]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) * 1024 < 256 * MIB


def test_filters_and_attributes_are_not_obeyed(repo: Repo, tmp_path: Path) -> None:
    attributes = repo.blob(b"*.rs filter=evil diff=evil merge=evil text eol=crlf ident export-subst\n")
    text = repo.blob(b"// $Id$ $Format:%H$\nfn good() {}\n")
    commit = repo.commit(repo.tree((FILE, b".gitattributes", attributes), (FILE, b"a.rs", text)))
    (repo.path / "config").open("a").write(f'[filter "evil"]\n\tsmudge = touch {tmp_path}/evil\n\trequired = true\n')
    _, into, _ = fetch(repo, commit, tmp_path)
    assert (into / "a.rs").read_bytes() == b"// $Id$ $Format:%H$\nfn good() {}\n"
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "setting",
    [
        "core.fsmonitor",
        "core.hooksPath",
        "uploadpack.packObjectsHook",
        "core.sshCommand",
        "core.gitProxy",
        "core.pager",
    ],
)
def test_the_delivered_configuration_runs_nothing(setting: str, repo: Repo, tmp_path: Path) -> None:
    script = repo.path / "evil.sh"
    script.write_text(f'#!/bin/sh\ntouch "{tmp_path}/evil"\nexec "$@"\n')
    script.chmod(0o755)
    value = str(repo.path / "hooks") if setting == "core.hooksPath" else str(script)
    subprocess.run(["git", f"--git-dir={repo.path}", "config", setting, value], check=True)
    done, _, _ = fetch(repo, repo.commit(repo.tree()), tmp_path)
    assert done.files == ("good.rs",)
    assert not (tmp_path / "evil").exists()


def test_hooks_that_lie_in_the_repository_do_not_run(repo: Repo, tmp_path: Path) -> None:
    (repo.path / "hooks").mkdir(exist_ok=True)
    for name in ("post-checkout", "reference-transaction", "post-update", "pre-auto-gc", "post-index-change"):
        hook = repo.path / "hooks" / name
        hook.write_text(f'#!/bin/sh\ntouch "{tmp_path}/evil"\n')
        hook.chmod(0o755)
    done, _, _ = fetch(repo, repo.commit(repo.tree()), tmp_path)
    assert done.files == ("good.rs",)
    assert not (tmp_path / "evil").exists()


def test_replacements_are_not_followed(repo: Repo, tmp_path: Path) -> None:
    good = repo.commit(repo.tree())
    evil = repo.commit(repo.tree((FILE, b"evil.rs", repo.blob()), good=False))
    (repo.path / "refs" / "replace").mkdir()
    (repo.path / "refs" / "replace" / good).write_text(evil + "\n")
    _, into, _ = fetch(repo, good, tmp_path)
    assert below(into) == ["good.rs"]


def test_an_object_that_is_not_what_its_id_says_is_refused(repo: Repo, tmp_path: Path) -> None:
    blob = repo.blob(b"fn a() {}\n")
    commit = repo.commit(repo.tree((FILE, b"a.rs", blob)))
    place = repo.path / "objects" / blob.hex()[:2] / blob.hex()[2:]
    place.write_bytes(zlib.compress(b"blob %d\0" % len(EVIL) + EVIL))
    with pytest.raises(WorldError, match="cannot fetch"):
        fetch(repo, commit, tmp_path)
    assert below(tmp_path / "into") == []


def test_a_missing_blob_is_an_error(repo: Repo, tmp_path: Path) -> None:
    commit = repo.commit(repo.tree((FILE, b"a.rs", bytes(range(1, 21)))))
    with pytest.raises(WorldError, match="cannot fetch"):
        fetch(repo, commit, tmp_path)


@pytest.mark.parametrize(
    "build",
    [
        named(b""),
        lambda repo: repo.tree((FILE, b"null.rs", b"\0" * 20)),
        lambda repo: repo.add(b"tree", b"100644 a.rs\0short"),
    ],
    ids=["empty name", "null id", "tree cut short"],
)
def test_a_tree_that_cannot_be_sent_is_an_error(build: Callable[[Repo], bytes], repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="cannot fetch"):
        fetch(repo, repo.commit(build(repo)), tmp_path)
    assert below(tmp_path / "into") == []


@pytest.mark.parametrize("kind", ["tree", "blob"])
def test_an_id_that_names_no_commit_is_refused(kind: str, repo: Repo, tmp_path: Path) -> None:
    tree = repo.tree()
    repo.commit(tree)
    id = tree if kind == "tree" else repo.blob(GOOD)
    with pytest.raises((NotFound, WorldError)):
        fetch(repo, id.hex(), tmp_path)


@pytest.mark.parametrize(
    "location",
    [
        "ext::sh -c 'touch evil'",
        "--upload-pack=touch evil",
        "fd::7",
        "gopher://x/y",
        "ftp://x/y",
        "a\nb",
        "",
        "transport::x",
    ],
)
def test_a_location_that_git_would_run_is_refused(location: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        GitFetcher().fetch(Source("git", "x", "a" * 40, location), tmp_path, wanted=WANTED)
    assert not os.path.exists("evil")


@pytest.mark.parametrize("commit", ["main", "HEAD", "abc1234", "a" * 39, "A" * 40, "-" * 40, "a" * 40 + "^{tree}"])
def test_only_a_full_commit_id_is_a_pin(commit: str, repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a full commit id"):
        GitFetcher().fetch(Source("git", "x", commit, str(repo.path)), tmp_path, wanted=WANTED)
