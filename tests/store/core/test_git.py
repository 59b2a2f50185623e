"""What holds over Git alone: other readers, other writers, locks, settings, maintenance and damage."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from workbench.domain.errors import Conflict, Corrupt, Refused, WorldError
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.store.git import locks, process, settings
from workbench.store.git.doctor import leftovers
from workbench.store.git.repository import GitRepository, common_dir
from workbench.store.git.settings import CLONE, HUB, differing, init_clone, init_hub

MAIN, ACTIVE = "refs/heads/main", "refs/workbench/channels/active"


def fill(repository: GitRepository, commits: list[ObjectId]) -> None:
    tag = repository.objects.add_tag("v1.0.0", commits[0], message="first", who="Ada <a@b>", time_ms=1000)
    moves = [RefMove(MAIN, new=commits[0]), RefMove(ACTIVE, new=commits[0]), RefMove("refs/tags/v1.0.0", new=tag)]
    repository.ledger.change(Action.PIN, moves, who="Ada", why="first", files={"ab/abcdef": b"{}"})


def findings(repository: GitRepository) -> dict[str, str]:
    return {finding.what: finding.severity for finding in repository.check()}


# --- other readers and writers ----------------------------------------------------------------------------------------


def test_dulwich_and_the_git_program_read_what_we_wrote_and_fsck_is_clean(git_repository, commits, git):
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
    git_repository.refs.swap([RefMove(name, new=one) for name in names])
    git(git_repository.path, "pack-refs", "--all", "--prune")
    assert [git_repository.refs.get(name) for name in names] == [one] * 20
    assert git_repository.refs.get("refs/tags/raw/n1/v1.0") is None
    git_repository.refs.swap([RefMove(names[0], one, two), RefMove(names[1], one, ZERO_ID)])
    assert [git_repository.refs.get(name) for name in names[:3]] == [two, None, one]
    assert len(git_repository.refs.all()) == 19


def test_an_annotated_tag_in_packed_refs_is_not_mixed_up_with_what_it_peels_to(git_repository, commits, git):
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
    git_repository.refs.swap([RefMove("refs/heads/a", new=one)])
    with pytest.raises(Conflict, match="refs/heads/a"):
        git_repository.refs.swap([RefMove("refs/heads/a/b", new=one)])


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
def test_no_child_outlives_its_repository(hub, commits, how):
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
    assert children() == before


def test_children_end_with_a_process_that_is_killed(hub):
    code = f"""
import os, signal, pathlib
from workbench.store.git.repository import GitRepository
from workbench.domain.ledger import RefMove
r = GitRepository(pathlib.Path({str(hub)!r}))
c = r.objects.add_commit(r.objects.add_tree(None, {{}}), parents=[], message="m", who="a", time_ms=0)
with r.refs.prepared([RefMove("refs/heads/main", new=c)]):
    print(pathlib.Path(f"/proc/self/task/{{os.getpid()}}/children").read_text(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    pids = done.stdout.split()
    assert len(pids) == 1, done.stderr
    waits = locks.backoff(10)
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert next(waits, None) is not None, "a child outlived its owner"
    assert locks.lock_files(hub) == []


def test_a_repository_that_was_closed_works_again(git_repository, commits):
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


# --- locks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock is told stale after 0.2 s instead of 1.5, by the same rule."""
    monkeypatch.setattr(locks, "STALE_AFTER_S", 0.2)


def test_a_stale_lock_is_removed_and_the_writer_goes_on(git_repository, commits, hasty):
    one = commits(git_repository, 1)[0]
    for name in (MAIN, "refs/workbench/ledger", ACTIVE):
        lock = git_repository.path / f"{name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    entry = git_repository.ledger.change(
        Action.PIN, [RefMove(MAIN, new=one), RefMove(ACTIVE, new=one)], who="a", why=""
    )
    assert git_repository.ledger.head() == entry
    assert locks.lock_files(git_repository.path) == []


def test_recover_removes_every_stale_lock(git_repository, commits, hasty):
    fill(git_repository, commits(git_repository, 1))
    for name in ("packed-refs", "HEAD", "refs/tags/v9.9.9", MAIN):
        (git_repository.path / f"{name}.lock").touch()
    assert git_repository.ledger.recover() == []
    assert locks.lock_files(git_repository.path) == []


def test_the_lock_of_a_git_that_lives_is_left_alone(git_repository, commits, hasty):
    one = commits(git_repository, 1)[0]
    with subprocess.Popen(
        ["git", "update-ref", "--stdin"], cwd=git_repository.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        owner.stdin.write(f"start\nupdate {MAIN} {one}\nprepare\n".encode())
        owner.stdin.flush()
        assert owner.stdout.readline() + owner.stdout.readline() == b"start: ok\nprepare: ok\n"
        assert locks.foreign_git(git_repository.path) == [owner.pid]
        with pytest.raises(WorldError, match=str(owner.pid)):
            with git_repository.refs.prepared([RefMove(MAIN, new=one)], patience_s=1.0):
                pass
        owner.stdin.close()
    git_repository.refs.swap([RefMove(MAIN, new=one)])


def test_a_prepared_change_of_ours_is_not_swept_by_another_process(git_repository, commits, hasty):
    one = commits(git_repository, 1)[0]
    with git_repository.refs.prepared([RefMove(MAIN, new=one)]) as change:
        with GitRepository(git_repository.path) as other:
            assert other.refs.sweep() == []
        change.commit()
    assert git_repository.refs.get(MAIN) == one


def test_writers_of_many_threads_take_turns(git_repository):
    def work(number: int) -> None:
        for step in range(8):
            git_repository.ledger.change(Action.HANDLED, [], who="a", why="", files={f"{number}/{step}": b"x"})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache = git_repository.refs.get("refs/workbench/cache")
    assert len(list(git_repository.objects.walk(cache))) == 32
    assert [entry.counter for entry in git_repository.ledger.history(100)] == list(range(32, 0, -1))


# --- recovery ---------------------------------------------------------------------------------------------------------


def cut_off(repository: GitRepository, old: ObjectId, new: ObjectId) -> None:
    """Leave what a process leaves that is killed right after the commit point."""
    ledger = repository.ledger
    moves = (RefMove(MAIN, old, new), RefMove(ACTIVE, old, new), RefMove("refs/tags/v2.0.0", new=new))
    before = ledger.head()
    entry = type(before)(before.counter + 1, Action.PIN, moves, "a", "cut off", 0)
    commit = ledger._write(entry, before)
    repository.refs.swap([RefMove("refs/workbench/ledger", before.commit, commit)])


def test_opening_finishes_a_change_that_was_cut_off(git_repository, commits):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    cut_off(git_repository, one, two)
    assert git_repository.refs.get(MAIN) == one
    with GitRepository(git_repository.path) as opened:
        assert [opened.refs.get(ref) for ref in (MAIN, ACTIVE, "refs/tags/v2.0.0")] == [two, two, two]
        assert opened.ledger.recover() == []


def test_a_change_finishes_the_one_before_it_first(git_repository, commits):
    one, two, three = commits(git_repository, 3)
    fill(git_repository, [one])
    cut_off(git_repository, one, two)
    with pytest.raises(Conflict) as lost:
        git_repository.ledger.change(Action.PIN, [RefMove(MAIN, one, three)], who="a", why="")
    assert lost.value.current == two
    assert git_repository.refs.get(ACTIVE) == two


def test_a_ref_that_someone_moved_on_since_is_not_moved_back(git_repository, commits):
    one, two, three = commits(git_repository, 3)
    fill(git_repository, [one])
    cut_off(git_repository, one, two)
    git_repository.refs.swap([RefMove(MAIN, one, three)])
    rolled = git_repository.ledger.recover()
    assert [entry.counter for entry in rolled] == [2]
    assert [git_repository.refs.get(ref) for ref in (MAIN, ACTIVE)] == [three, two]


def test_a_person_who_resets_a_branch_afterwards_is_not_overruled(git_repository, commits):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    git_repository.ledger.change(Action.PIN, [RefMove(MAIN, one, two)], who="a", why="")
    git_repository.refs.swap([RefMove(MAIN, two, one)])
    with GitRepository(git_repository.path) as opened:
        assert opened.ledger.recover() == []
        assert opened.refs.get(MAIN) == one


def test_a_clone_that_took_the_ledger_but_not_the_artifacts_opens(git_repository, commits, git, tmp_path):
    fill(git_repository, commits(git_repository, 1))
    clone = init_hub(tmp_path / "clone.git")
    git(clone, "fetch", "--quiet", str(git_repository.path), "refs/workbench/ledger:refs/workbench/ledger")
    with GitRepository(clone) as opened:
        assert opened.ledger.head().counter == 1
        assert set(opened.refs.all()) == {"refs/workbench/ledger"}


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


def test_a_broken_ref_file_is_named(git_repository, commits):
    fill(git_repository, commits(git_repository, 1))
    (git_repository.path / MAIN).write_text("garbage\n")
    with pytest.raises(WorldError, match=MAIN):
        git_repository.refs.get(MAIN)


def test_a_ledger_entry_of_a_format_we_do_not_know_is_refused(git_repository, commits):
    fill(git_repository, commits(git_repository, 1))
    head = git_repository.ledger.head()
    objects = git_repository.objects
    tree = objects.add_tree(None, {"entry.json": head.to_bytes().replace(b'"format": 1', b'"format": 2')})
    forged = objects.add_commit(tree, parents=[ObjectId(head.commit)], message="m", who="a", time_ms=0)
    git_repository.refs.swap([RefMove("refs/workbench/ledger", ObjectId(head.commit), forged)])
    with pytest.raises(Corrupt, match="format 2"):
        git_repository.ledger.change(Action.HANDLED, [], who="a", why="")


def test_what_is_no_repository_says_so(tmp_path):
    with pytest.raises(WorldError, match="not a Git repository"):
        GitRepository(tmp_path)


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


# --- settings, doctor, maintenance ------------------------------------------------------------------------------------


def test_init_owns_its_settings_twice_over_and_doctor_agrees(hub, tmp_path):
    before = (hub / "config").read_text()
    assert init_hub(hub) == hub
    assert (hub / "config").read_text() == before
    assert differing(hub, HUB) == []
    clone = init_clone(tmp_path / "clone")
    assert differing(clone, CLONE) == []
    assert settings.settings_of(clone) is CLONE


def test_a_clone_whose_git_directory_lies_elsewhere_is_not_taken_for_a_hub(tmp_path, git):
    git(tmp_path, "init", "-q", "--separate-git-dir", str(tmp_path / "elsewhere.git"), "work")
    assert settings.settings_of(tmp_path / "elsewhere.git") is CLONE
    with GitRepository(tmp_path / "elsewhere.git") as repository:
        assert not any("hook" in what or "core.bare" in what for what in findings(repository))


def test_init_mends_a_setting_that_someone_changed_and_keeps_what_is_theirs(hub, git):
    git(hub, "config", "receive.unpackLimit", "100")
    git(hub, "config", "user.name", "Someone")
    (hub / "info" / "attributes").write_text("*.png binary")
    with GitRepository(hub) as repository:
        assert findings(repository)["setting receive.unpackLimit is not 1"] == "warning"
    init_hub(hub)
    assert differing(hub, HUB) == []
    assert git(hub, "config", "user.name") == "Someone\n"
    assert (hub / "info" / "attributes").read_text() == "*.png binary\npayload/** -delta\n"


def test_init_refuses_a_folder_that_holds_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(Refused, match="not a bare Git repository"):
        init_hub(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_doctor_finds_missing_hooks_leftovers_locks_and_lost_objects(git_repository, commits):
    fill(git_repository, commits(git_repository, 1))
    hub = git_repository.path
    (hub / "refs" / "heads" / "x.lock").touch()
    old = hub / "objects" / "tmp_objdir-incoming-abc"
    old.mkdir()
    os.utime(old, (0, 0))
    (hub / "objects" / "tmp_obj_fresh").touch()
    blob = git_repository.objects.entry(git_repository.resolve("main"), "file").id
    (hub / "objects" / blob[:2] / blob[2:]).unlink()
    found = findings(git_repository)
    assert found["hook pre-receive is missing or cannot be executed: pushes are not checked"] == "error"
    assert found["1 temporary files of killed git programs"] == "warning"
    assert any("x.lock" in what for what in found)
    assert any(blob in what and severity == "error" for what, severity in found.items())
    assert leftovers(hub) == [old]


def test_the_quarantine_of_a_push_that_takes_hours_is_left_alone(git_repository):
    """Its folder is as old as the push; what is written into it is not."""
    quarantine = git_repository.path / "objects" / "tmp_objdir-incoming-live"
    (quarantine / "pack").mkdir(parents=True)
    pack = quarantine / "pack" / "tmp_pack_abc"
    pack.touch()
    hours_ago = pack.stat().st_mtime - 5 * 3600
    for path in (quarantine, quarantine / "pack"):
        os.utime(path, (hours_ago, hours_ago))
    assert leftovers(git_repository.path) == []
    git_repository.maintain()
    assert pack.exists()
    os.utime(pack, (hours_ago, hours_ago))
    assert leftovers(git_repository.path) == [quarantine]


def test_doctor_is_content_with_a_healthy_hub(git_repository, commits):
    fill(git_repository, commits(git_repository, 1))
    (git_repository.path / "hooks").mkdir()
    for name in ("pre-receive", "proc-receive"):
        hook = git_repository.path / "hooks" / name
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o755)
    git_repository.maintain()
    assert {finding.severity for finding in git_repository.check()} == {"ok"}


def test_maintenance_packs_writes_a_bitmap_and_sweeps_and_loses_nothing(git_repository, commits, git):
    fill(git_repository, commits(git_repository, 40))
    unnamed = git_repository.objects.add_blob(b"not named yet")
    hub = git_repository.path
    old = hub / "objects" / "pack" / "tmp_pack_x"
    old.touch()
    os.utime(old, (0, 0))
    before = git_repository.refs.all()
    git_repository.maintain()
    assert git_repository.refs.all() == before
    assert git_repository.objects.read_blob(unnamed) == b"not named yet"
    assert not old.exists()
    assert any((hub / "objects" / "pack").glob("multi-pack-index-*.bitmap"))
    assert (hub / "packed-refs").is_file()
    assert git_repository.maintain()
    git(hub, "fsck", "--strict")


def test_a_large_pack_is_never_rewritten(git_repository, commits, git, monkeypatch):
    from workbench.store.git import maintenance

    monkeypatch.setattr(maintenance, "KEEP_BYTES", 1)
    fill(git_repository, commits(git_repository, 5))
    git_repository.maintain()
    packs = set((git_repository.path / "objects" / "pack").glob("*.pack"))
    git_repository.ledger.change(Action.HANDLED, [], who="a", why="more")
    git_repository.maintain()
    assert packs < set((git_repository.path / "objects" / "pack").glob("*.pack"))


def test_a_worktree_and_a_plain_clone_find_the_one_store(git_repository, commits, git, tmp_path):
    fill(git_repository, commits(git_repository, 1))
    git(tmp_path, "clone", "--quiet", str(git_repository.path), "work")
    git(tmp_path / "work", "worktree", "add", "--quiet", "--detach", "../tree")
    inside = Path(git(tmp_path / "tree", "rev-parse", "--git-dir").strip())
    assert common_dir(inside) == tmp_path / "work" / ".git"
    with GitRepository(inside) as repository:
        assert repository.resolve("v1.0.0") == repository.resolve("main")


def test_a_light_command_imports_no_git_library(hub):
    code = f"""
import sys, pathlib
from workbench.store.git.repository import GitRepository
with GitRepository(pathlib.Path({str(hub)!r})) as r:
    r.refs.all(); r.ledger.head(); r.artifacts.list()
print([name for name in ("pygit2", "dulwich", "numpy", "pydantic", "asyncio") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
