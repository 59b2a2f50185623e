"""What holds over Git alone: other readers, other writers, children and damage."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from workbench.domain.errors import Conflict, Corrupt, Refused, WorldError
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.store.git import database, locks, process
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_clone, init_hub
from workbench.system.locks import backoff

MAIN, ACTIVE = "refs/heads/main", "refs/workbench/channels/active"

# --- other readers and writers ----------------------------------------------------------------------------------------


def test_dulwich_and_the_git_program_read_what_we_wrote_and_fsck_is_clean(git_repository, commits, git, fill):
    from dulwich.repo import Repo

    fill(git_repository, commits(git_repository, 2))
    hub = git_repository.path
    assert "error" not in (said := git(hub, "fsck", "--strict", "--full"))
    assert "warning" not in said
    expected = dict(git_repository.refs.all())
    with Repo(str(hub)) as other:
        assert {
            ref.decode(): ObjectId(id.decode()) for ref, id in other.get_refs().items() if ref != b"HEAD"
        } == expected
        tag = other[expected["refs/tags/v1.0.0"].encode()]
        assert (tag.name, tag.tagger, tag.tag_time, tag.message) == (b"v1.0.0", b"Ada <a@b>", 1, b"first\n")
        entry = other[expected["refs/workbench/ledger"].encode()]
        assert entry.message == b"pin: first\n\nCounter: 1\n"
        assert [name for name, _, _ in other[entry.tree].items()] == [b"entry.json"]
    assert git(hub, "log", "-1", "--format=%an %ae %at %(trailers:only)", "refs/workbench/ledger").split()[:2] == [
        "Ada",
        "workbench@localhost",
    ]


def test_we_read_what_dulwich_and_the_git_program_wrote(git_repository, git, tmp_path):
    from dulwich.objects import Blob, Commit, Tree
    from dulwich.repo import Repo

    with Repo(str(git_repository.path)) as other:
        blob, tree, commit = Blob.from_string(b"from dulwich"), Tree(), Commit()
        tree.add(b"a", 0o100644, blob.id)
        commit.tree, commit.author, commit.committer = tree.id, b"Dul <d@w>", b"Dul <d@w>"
        commit.author_time = commit.commit_time = 77
        commit.author_timezone = commit.commit_timezone = 3600
        commit.message = b"hello\n\nKey: value\n"
        for thing in (blob, tree, commit):
            other.object_store.add_object(thing)
        other.refs[b"refs/heads/dulwich"] = commit.id
    id = git_repository.resolve("dulwich")
    info = git_repository.objects.commit(id)
    assert (info.author, info.time_s, info.trailers) == ("Dul <d@w>", 77, (("Key", "value"),))
    work = tmp_path / "work"
    git(tmp_path, "clone", "--quiet", "--branch", "dulwich", str(git_repository.path), str(work))
    (work / "b").write_text("from git")
    git(work, "add", "b")
    git(work, "-c", "user.name=G", "-c", "user.email=g@h", "commit", "--quiet", "-m", "two")
    git(git_repository.path, "config", "--unset", "receive.procReceiveRefs")  # without hooks, git itself moves the ref
    git(work, "push", "--quiet", "origin", "dulwich")
    assert git_repository.objects.read_file(git_repository.resolve("dulwich"), "b") == b"from git"


def test_packed_refs_are_read_moved_and_removed_like_loose_ones(git_repository, commits, git):
    one, two = commits(git_repository, 2)
    names = [f"refs/tags/raw/n{i}/v1.0.0" for i in range(20)]
    git_repository.refs.swap([RefMove.named(name, new=one) for name in names])
    git(git_repository.path, "pack-refs", "--all", "--prune")
    assert [git_repository.refs.get(name) for name in names] == [one] * 20
    assert git_repository.refs.get("refs/tags/raw/n1/v1.0") is None
    git_repository.refs.swap([RefMove.named(names[0], one, two), RefMove.named(names[1], one, ZERO_ID)])
    assert [git_repository.refs.get(name) for name in names[:3]] == [two, None, one]
    assert len(git_repository.refs.all()) == 19


def test_an_annotated_tag_in_packed_refs_is_not_mixed_up_with_what_it_peels_to(git_repository, commits, git, fill):
    fill(git_repository, commits(git_repository, 1))
    before = git_repository.refs.get("refs/tags/v1.0.0")
    git(git_repository.path, "pack-refs", "--all", "--prune")
    assert git_repository.refs.get("refs/tags/v1.0.0") == before
    assert git_repository.objects.kind(before) == "tag"


def test_a_name_with_a_line_end_of_unicode_breaks_no_list(git_repository, commits, git):
    """git allows it, so a clone of a stranger's repository may hold one."""
    (id,) = commits(git_repository, 1)
    for name in ("a\u2028b", "a\x85b", "plain"):
        git(git_repository.path, "update-ref", f"refs/heads/{name}", id)
    assert git_repository.refs.all() == {f"refs/heads/{name}": id for name in ("a\x85b", "a\u2028b", "plain")}


def test_a_ref_and_a_folder_of_refs_with_one_name_are_a_conflict(git_repository, commits):
    one = commits(git_repository, 1)[0]
    git_repository.refs.swap([RefMove.named("refs/heads/a", new=one)])
    with pytest.raises(Conflict, match="refs/heads/a"):
        git_repository.refs.swap([RefMove.named("refs/heads/a/b", new=one)])


def test_objects_of_a_quarantine_are_read_and_nothing_is_written(git_repository, commits, tmp_path):
    other = GitRepository(init_hub(tmp_path / 'other: "odd".git'))
    with other:
        pushed = commits(other, 1)[0]
    with GitRepository(git_repository.path, object_dirs=[other.path / "objects"]) as view:
        assert view.objects.read_file(pushed, "file") == b"0\n"
        with pytest.raises(Refused, match="read-only"):
            view.objects.add_blob(b"")
    assert not git_repository.objects.exists(pushed)


# --- children ---------------------------------------------------------------------------------------------------------


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_no_child_outlives_its_repository(hub, commits, how, fill):
    gc.collect()  # what an earlier test forgot ends now, not in the middle of this one
    before = children()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repository = GitRepository(hub)
        fill(repository, commits(repository, 1))
        assert len(children() - before) == 3  # one reads objects, two move refs
        if how == "closed":
            repository.close()
        del repository
        gc.collect()
    assert not children() - before


def has_ended(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state == "Z"  # whoever adopted it has not looked yet


def test_children_end_with_a_process_that_is_killed(hub):
    code = f"""
import os, signal, pathlib
from workbench.store.git.repository import GitRepository
from workbench.domain.ledger import RefMove
r = GitRepository(pathlib.Path({str(hub)!r}))
c = r.objects.add_commit(r.objects.add_tree(None, {{}}), parents=[], message="m", who="a", time_ms=0)
with r.refs.prepared([RefMove.named("refs/heads/main", new=c)]):
    print(pathlib.Path(f"/proc/self/task/{{os.getpid()}}/children").read_text(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    pids = done.stdout.split()
    assert len(pids) == 1, done.stderr
    waits = backoff(10)
    while not all(has_ended(pid) for pid in pids):
        assert next(waits, None) is not None, "a child outlived its owner"
    assert locks.lock_files(hub) == []


def test_a_repository_that_was_closed_works_again(git_repository, commits, fill):
    git_repository.close()
    fill(git_repository, commits(git_repository, 1))
    assert git_repository.resolve("active") == commits(git_repository, 1)[0]


def test_a_child_sees_no_configuration_of_the_person(git_repository, tmp_path, monkeypatch):
    (tmp_path / ".gitconfig").write_text("[core]\n\tabbrev = 5\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.abbrev=6'")
    done = process.attempt(git_repository.path, "config", "--get", "core.abbrev")
    assert done.returncode == 1


class BesidePrune:
    """libgit2, while housekeeping removes the folder of an object between its mkdir and its rename."""

    def __init__(self, real, times):
        self.real, self.left = real, times

    def write(self, kind, data):
        if self.left == 0:
            return self.real.write(kind, data)
        self.left -= 1
        raise OSError("failed to rename lockfile to 'objects/04/17': No such file or directory")


@pytest.mark.parametrize("times", [0, 3, 100])
def test_an_object_whose_folder_is_pruned_meanwhile_is_written_again_within_a_bound(git_repository, times):
    git_repository.objects.add_blob(b"before")
    database = git_repository._database
    database._writer = BesidePrune(database._writer, times)
    if times < 100:
        assert git_repository.objects.read_blob(git_repository.objects.add_blob(b"beside")) == b"beside"
        return
    with pytest.raises(WorldError, match="No such file"):
        git_repository.objects.add_blob(b"beside")
    assert database._writer.left > 0


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_pipe_that_broke_in_a_question_does_not_shift_the_answers_to_the_next(git_repository):
    ids = [git_repository.objects.add_blob(data) for data in (b"first", b"second")]
    assert git_repository.objects.read_blob(ids[0]) == b"first"
    child = git_repository._database._pipe._process
    with child.stdin as real, open("/dev/full", "wb") as full:
        child.stdin = full
        with pytest.raises(WorldError, match="the disk is full"):
            git_repository.objects.read_blob(ids[0])
        real.close()
    assert git_repository.objects.read_blob(ids[1]) == b"second"


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "swap"])
def test_a_damaged_object_is_told_apart_from_a_missing_one(git_repository, damage):
    id = git_repository.objects.add_blob(b"precious" * 50)
    other = git_repository.objects.add_blob(b"another")
    git_repository.close()
    path = git_repository.path / "objects" / id[:2] / id[2:]
    data = bytearray(path.read_bytes())
    path.chmod(0o644)
    if damage == "flip":
        data[len(data) // 2] ^= 0x10
    elif damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "empty":
        data = bytearray()
    else:
        data = bytearray((git_repository.path / "objects" / other[:2] / other[2:]).read_bytes())
    path.write_bytes(data)
    with pytest.raises(Corrupt, match=id):
        git_repository.objects.read_blob(id)
    assert git_repository.objects.read_blob(other) == b"another"


def test_a_child_with_much_to_say_about_damage_is_waited_for_by_nobody(git_repository):
    """More than a pipe holds, and than is kept of it."""
    id = git_repository.objects.add_blob(b"damaged")
    path = git_repository.path / "objects" / id[:2] / id[2:]
    path.chmod(0o644)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert not any(git_repository.objects.exists(id) for _ in range(2000))
    with pytest.raises(Corrupt):
        git_repository.objects.read_blob(id)


def test_a_child_that_does_not_answer_is_ended_and_replaced(git_repository, monkeypatch):
    id = git_repository.objects.add_blob(b"x" * 100)
    assert git_repository.objects.exists(id)
    monkeypatch.setattr(database, "ANSWER_S", 0.2)
    git_repository._database._pipe._process.send_signal(signal.SIGSTOP)
    with pytest.raises(WorldError, match="did not answer"):
        git_repository.objects.read_blob(id)
    monkeypatch.undo()
    assert git_repository.objects.read_blob(id) == b"x" * 100


def test_a_broken_ref_file_is_named(git_repository, commits, fill):
    fill(git_repository, commits(git_repository, 1))
    (git_repository.path / MAIN).write_text("garbage\n")
    with pytest.raises(WorldError, match=MAIN):
        git_repository.refs.get(MAIN)


def test_a_ledger_entry_of_a_format_we_do_not_know_is_refused(git_repository, commits, fill):
    fill(git_repository, commits(git_repository, 1))
    head = git_repository.ledger.head()
    objects = git_repository.objects
    tree = objects.add_tree(None, {"entry.json": head.to_bytes().replace(b'"format": 1', b'"format": 2')})
    forged = objects.add_commit(tree, parents=[ObjectId(head.commit)], message="m", who="a", time_ms=0)
    git_repository.refs.swap([RefMove.named("refs/workbench/ledger", ObjectId(head.commit), forged)])
    with pytest.raises(Corrupt, match="format 2"):
        git_repository.ledger.change(Action.HANDLED, [], who="a", why="")


def test_head_is_that_of_the_work_tree_that_was_opened(git_repository, commits, fill, git, tmp_path):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    git_repository.refs.swap([RefMove.named("refs/heads/topic", new=two)])
    git(git_repository.path, "worktree", "add", "--quiet", str(tmp_path / "linked"), "topic")
    with GitRepository(git_repository.path / "worktrees/linked") as linked:
        assert linked.path == git_repository.path
        assert linked.resolve("HEAD") == linked.resolve("topic") == two
        assert git_repository.resolve("HEAD") == linked.resolve("main") == one


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("name", ["grün", "日本/語", 'a"b', "a./b", "caf\udce9", "x\u2028y", "x\u00a0"])
def test_a_branch_that_a_person_named_as_git_allows_is_found(git_repository, commits, git, name, is_packed):
    one = commits(git_repository, 1)[0]
    folder = git_repository.path
    git(folder, "check-ref-format", f"refs/heads/{name}")
    git(folder, "update-ref", f"refs/heads/{name}", one)
    git(folder, "symbolic-ref", "HEAD", f"refs/heads/{name}")
    if is_packed:
        git(folder, "pack-refs", "--all")
    assert git_repository.refs.get(f"refs/heads/{name}") == one
    assert git_repository.resolve("HEAD") == git_repository.resolve(name) == one


def test_what_is_no_repository_says_so(tmp_path):
    with pytest.raises(WorldError, match="not a Git repository"):
        GitRepository(tmp_path)


@pytest.mark.parametrize(
    ("extension", "value", "hint"),
    [("objectFormat", "sha256", "fast-import"), ("refStorage", "reftable", "refs migrate")],
)
@pytest.mark.parametrize("written", ["[extensions]\n\t{} = {}\n", '[EXTENSIONS] {} = "{}" ; so\n'])
def test_a_repository_that_keeps_its_objects_or_refs_in_another_way_is_refused(hub, written, extension, value, hint):
    with open(hub / "config", "a") as config:
        config.write(written.format(extension, value))
    before = (hub / "config").read_text()
    for use in (GitRepository, init_hub):
        with pytest.raises(Refused, match=value) as refused:
            use(hub)
        assert hint in refused.value.hint
    assert (hub / "config").read_text() == before


def test_a_sha256_repository_that_git_made_is_refused_and_left_as_it_was(git, tmp_path):
    git(tmp_path, "init", "--quiet", "--object-format=sha256", "work")
    before = set(tmp_path.rglob("*"))
    for use in (lambda: GitRepository(tmp_path / "work" / ".git"), lambda: init_clone(tmp_path / "work")):
        with pytest.raises(Refused, match="sha256"):
            use()
    assert set(tmp_path.rglob("*")) == before


def test_a_repository_of_another_user_is_not_opened(hub, git, tmp_path, monkeypatch):
    """Its configuration could name a program, as this one does for an object that it lacks."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a repository of another user")
    ran = tmp_path / "ran"
    for name, value in {
        "remote.x.promisor": "true",
        "remote.x.url": "/",
        "remote.x.uploadpack": f"touch {ran};",
    }.items():
        git(hub, "config", name, value)
    git(hub, "config", "extensions.partialClone", "x")
    for path in (hub, *hub.rglob("*")):
        os.chown(path, 65534, 65534)
    with pytest.raises(WorldError, match="belongs to another user"):
        with GitRepository(hub) as repository:
            repository.objects.exists(ObjectId("1" * 40))
    assert not ran.exists()
    trusted = tmp_path / "gitconfig"
    trusted.write_text(f"[safe]\n\tdirectory = {hub}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(trusted))
    with GitRepository(hub) as repository:
        assert repository.refs.all() == {}


FULL = """
import os, sys
from pathlib import Path
from workbench.domain.errors import WorldError
from workbench.domain.ledger import RefMove
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub
disk = Path(sys.argv[1])
with GitRepository(init_hub(disk / "hub.git")) as hub:
    tree = hub.objects.add_tree(None, {})
    commit = hub.objects.add_commit(tree, parents=(), message="m", who="a", time_ms=0)
    with open(disk / "fill", "wb", buffering=0) as fill:
        try:
            while fill.write(bytes(512)):
                pass
        except OSError:
            pass
    for write in (
        lambda: hub.objects.add_blob(os.urandom(1000)),
        lambda: hub.refs.swap([RefMove.named("refs/heads/main", new=commit)]),
    ):
        try:
            write()
        except WorldError as error:
            print(str(error).replace(chr(10), " "))
"""


def test_on_a_full_disk_every_write_says_that_it_is_full(tmp_path):
    """A real one: a small disk in memory, where this machine lets us mount one."""
    small = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=2m small "$0" && exec "$@"', str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*small, "true"], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    done = subprocess.run([*small, sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert all("the disk is full" in line and "free some space" in line for line in lines), lines
