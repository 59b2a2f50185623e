"""The Git adapter among other writers: locks that were left are removed, what was cut off is finished."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from workbench.domain.errors import Conflict, WorldError
from workbench.domain.ids import ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.store.git import locks
from workbench.store.git.ledger import Unfinished
from workbench.store.git.refs import Busy
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub

MAIN, TOPIC, ACTIVE = "refs/heads/main", "refs/heads/topic", "refs/workbench/channels/active"


# --- locks ------------------------------------------------------------------------------------------------------------

KILLED = """
import os, pathlib, signal, sys
from workbench.domain.ids import ObjectId
from workbench.domain.ledger import RefMove
from workbench.store.git.repository import GitRepository
hub, old, new = sys.argv[1:]
repository = GitRepository(pathlib.Path(hub))
moves = [RefMove.named("refs/heads/main", ObjectId(old), ObjectId(new))]
moves.append(RefMove.named("refs/workbench/channels/active", ObjectId(old)))  # a deletion
with repository.refs.prepared(moves):
    for child in pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_locks(hub: Path, old: ObjectId, new: ObjectId) -> list[str]:
    """The locks that a process of ours and its git left, which were killed while they moved refs."""
    subprocess.run([sys.executable, "-c", KILLED, str(hub), old, new], check=False)
    left = [str(path.relative_to(hub)) for path in locks.lock_files(hub)]
    assert left == ["HEAD.lock", "packed-refs.lock", "packed-refs.new", f"{MAIN}.lock", f"{ACTIVE}.lock"]
    return left


def holding(folder: Path, one: ObjectId) -> subprocess.Popen[bytes]:
    """A git of somebody that holds the lock of a branch."""
    owner = subprocess.Popen(
        ["git", "update-ref", "--stdin"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    owner.stdin.write(f"start\nupdate {TOPIC} {one}\nprepare\n".encode())
    owner.stdin.flush()
    assert owner.stdout.readline() + owner.stdout.readline() == b"start: ok\nprepare: ok\n"
    return owner


def make_old(lock: Path) -> None:
    then = time.time() - locks.OLD_S
    os.utime(lock, (then, then))


def test_locks_that_a_killed_process_of_ours_left_keep_nobody_waiting(git_repository, commits, fill, git):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    git(git_repository.path, "pack-refs", "--all")
    leave_locks(git_repository.path, one, two)
    moves = [RefMove.named(MAIN, one, two), RefMove.named(ACTIVE, one)]
    with git_repository.refs.prepared(moves, patience_s=0.5) as change:
        change.commit()
    assert (git_repository.refs.get(MAIN), git_repository.refs.get(ACTIVE)) == (two, None)
    assert locks.lock_files(git_repository.path) == []


def test_locks_that_a_killed_git_of_ours_left_keep_nobody_waiting(git_repository, commits, fill):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    with git_repository.refs.prepared([RefMove.named(MAIN, one, two)]) as change:
        words = {"update-ref", f"--git-dir={git_repository.path}"}
        for child in psutil.Process().children():
            if words <= {*child.cmdline()}:
                child.kill()
        with pytest.raises(WorldError):
            change.commit()
    with git_repository.refs.prepared([RefMove.named(MAIN, one, two)], patience_s=0.5) as change:
        change.commit()
    assert git_repository.refs.get(MAIN) == two


def test_recover_removes_what_our_gits_left_and_what_is_old(git_repository, commits, fill, git):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    git(git_repository.path, "pack-refs", "--all")
    leave_locks(git_repository.path, one, two)
    old, young = (git_repository.path / f"refs/tags/{name}.lock" for name in ("v8.8.8", "v9.9.9"))
    for path in (old, young):
        path.touch()
    make_old(old)
    assert git_repository.ledger.recover() == []
    assert locks.lock_files(git_repository.path) == [young]


def test_a_lock_of_somebody_else_is_left_alone_and_named_with_what_to_do(git_repository, commits, git):
    one = commits(git_repository, 1)[0]
    with holding(git_repository.path, one) as owner:
        with pytest.raises(Busy, match=rf"^{TOPIC}\.lock is [0-9] s old: another git holds it") as busy:
            with git_repository.refs.prepared([RefMove.named(TOPIC, new=one)], patience_s=0.5):
                pass
        owner.kill()
    command = busy.value.hint.partition("; if no git is at work there: ")[2]
    subprocess.run(command, shell=True, check=True)
    git_repository.refs.swap([RefMove.named(TOPIC, new=one)])


def test_a_lock_that_somebody_else_left_ten_minutes_ago_is_removed_by_whoever_meets_it(git_repository, commits):
    one = commits(git_repository, 1)[0]
    with holding(git_repository.path, one) as owner:
        owner.kill()
    make_old(git_repository.path / f"{TOPIC}.lock")
    with git_repository.refs.prepared([RefMove.named(TOPIC, new=one)], patience_s=0.5) as change:
        change.commit()
    assert git_repository.refs.get(TOPIC) == one


def test_a_pusher_who_meets_a_lock_is_told_which_file_and_doctor_names_it(git_repository, commits, git):
    one = commits(git_repository, 1)[0]
    lock = git_repository.path / f"{TOPIC}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    (finding,) = [each for each in git_repository.check() if "lock" in each.what]
    assert (finding.severity, finding.fix) == ("warning", f"rm -f {lock}")
    subprocess.run(finding.fix, shell=True, check=True)
    git_repository.refs.swap([RefMove.named(TOPIC, new=one)])


def test_a_prepared_change_of_ours_is_not_swept_by_another_process(git_repository, commits):
    """Nor where somebody who was killed had named the same lock."""
    one = commits(git_repository, 1)[0]
    with git_repository.refs.prepared([RefMove.named(MAIN, new=one)]) as change:
        note = git_repository.path / "workbench" / "locks" / "99"
        note.write_text(f"{time.time_ns() - 1_000_000_000}\n{MAIN}\n")
        make_old(git_repository.path / "HEAD.lock")
        with GitRepository(git_repository.path) as other:
            assert other.refs.sweep() == []
        change.commit()
    assert git_repository.refs.get(MAIN) == one
    assert git_repository.refs.sweep() == []
    assert note.read_bytes().strip() == b""


def test_a_lock_that_was_made_after_the_one_of_the_killed_had_gone_is_somebody_elses(git_repository, commits, fill):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    note = git_repository.path / "workbench" / "locks" / "99"
    with holding(git_repository.path, two):
        for named_s in (-120, 120):
            note.write_text(f"{time.time_ns() + named_s * 10**9}\n{TOPIC}\n")
            assert git_repository.refs.sweep() == []
        note.write_text(f"{time.time_ns() - 10**9}\n{TOPIC}\n")
        assert git_repository.refs.sweep() == [git_repository.path / f"{TOPIC}.lock"]


PACKING = """#!/bin/sh
case "$*" in *pack-refs*) : > packed-refs.lock; kill -9 $$ ;; *multi-pack-index*) kill -9 $$ ;; esac
exec {git} "$@"
"""


def test_what_a_killed_maintenance_left_does_not_stop_the_next(git_repository, commits, fill, tmp_path, monkeypatch):
    fill(git_repository, commits(git_repository, 1))
    (tmp_path / "git").write_text(PACKING.format(git=shutil.which("git")))
    (tmp_path / "git").chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(WorldError, match="pack-refs"):
            git_repository.maintain()
    assert locks.lock_files(git_repository.path) == [git_repository.path / "packed-refs.lock"]
    done = git_repository.maintain()
    assert "packed the refs" in done
    assert locks.lock_files(git_repository.path) == []


def test_a_git_of_ours_that_was_killed_while_it_had_nothing_to_do_is_replaced(git_repository, commits):
    one, two = commits(git_repository, 2)
    git_repository.refs.swap([RefMove.named(MAIN, new=one)])
    of_ours = [child for child in psutil.Process().children() if f"--git-dir={git_repository.path}" in child.cmdline()]
    (idle,) = [child for child in of_ours if "update-ref" in child.cmdline()]
    idle.kill()
    git_repository.refs.swap([RefMove.named(MAIN, one, two)])
    assert git_repository.refs.get(MAIN) == two


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


def cut_off(repository: GitRepository, old: ObjectId, new: ObjectId, *more: RefMove) -> None:
    """Leave what a process leaves that is killed right after the commit point."""
    ledger = repository.ledger
    moves = (
        RefMove.named(MAIN, old, new),
        RefMove.named(ACTIVE, old, new),
        RefMove.named("refs/tags/v2.0.0", new=new),
        *more,
    )
    before = ledger.head()
    entry = type(before)(before.counter + 1, Action.PIN, moves, "a", "cut off", 0)
    commit = ledger._write(entry, before)
    ledger._turn.note_begun(commit)
    repository.refs.swap([RefMove.named("refs/workbench/ledger", before.commit, commit)])


def test_opening_finishes_a_change_that_was_cut_off(git_repository, commits, fill):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    cut_off(git_repository, one, two)
    assert git_repository.refs.get(MAIN) == one
    with GitRepository(git_repository.path) as opened:
        assert [opened.refs.get(ref) for ref in (MAIN, ACTIVE, "refs/tags/v2.0.0")] == [two, two, two]
        assert opened.ledger.recover() == []


def test_a_change_finishes_the_one_before_it_first(git_repository, commits, fill):
    one, two, three = commits(git_repository, 3)
    fill(git_repository, [one])
    cut_off(git_repository, one, two)
    with pytest.raises(Conflict) as lost:
        git_repository.ledger.change(Action.PIN, [RefMove.named(MAIN, one, three)], who="a", why="")
    assert lost.value.current == two
    assert git_repository.refs.get(ACTIVE) == two


def test_a_ref_that_someone_moved_on_since_is_not_moved_back(git_repository, commits, fill):
    one, two, three = commits(git_repository, 3)
    fill(git_repository, [one])
    cut_off(git_repository, one, two)
    git_repository.refs.swap([RefMove.named(MAIN, one, three)])
    rolled = git_repository.ledger.recover()
    assert [entry.counter for entry in rolled] == [2]
    assert [git_repository.refs.get(ref) for ref in (MAIN, ACTIVE)] == [three, two]


def test_a_person_who_resets_a_branch_afterwards_is_not_overruled(git_repository, commits, fill):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    git_repository.ledger.change(Action.PIN, [RefMove.named(MAIN, one, two)], who="a", why="")
    git_repository.refs.swap([RefMove.named(MAIN, two, one)])
    with GitRepository(git_repository.path) as opened:
        assert opened.ledger.recover() == []
        assert opened.refs.get(MAIN) == one


def test_an_entry_that_a_ref_of_another_name_keeps_from_being_finished_is_told_and_prevents_no_reading(
    git_repository, commits, fill
):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    cut_off(git_repository, one, two, RefMove.named("refs/heads/topic", new=two))
    in_the_way = RefMove.named("refs/heads/topic/mine", new=one)
    git_repository.refs.swap([in_the_way])
    with GitRepository(git_repository.path) as opened:
        assert "refs/heads/topic" in opened.unfinished.what
        assert "in the way" in opened.unfinished.hint
        assert opened.ledger.head().counter == 2
        assert [f.what for f in opened.check() if f.what == opened.unfinished.what]
        assert opened.maintain()
        for write in (
            lambda: opened.ledger.undo(who="a"),
            lambda: opened.ledger.change(Action.PUSH, [], who="a", why=""),
        ):
            with pytest.raises(Unfinished):
                write()
        opened.refs.swap([RefMove(in_the_way.ref, one)])
    with GitRepository(git_repository.path) as opened:
        assert opened.unfinished is None
        assert opened.refs.get(MAIN) == opened.refs.get("refs/heads/topic") == two


def clone_with_ledger(repository: GitRepository, git, folder: Path) -> Path:
    """A clone of a person, at main as it stands, that takes the hub's own refs along when it fetches."""
    git(folder.parent, "clone", "--quiet", "--origin", "up", str(repository.path), str(folder))
    git(folder, "config", "--add", "remote.up.fetch", "+refs/workbench/*:refs/workbench/*")
    return folder


def test_an_entry_that_was_fetched_moves_no_branch_of_the_clone(git_repository, commits, git, tmp_path, fill):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    clone = clone_with_ledger(git_repository, git, tmp_path / "clone")
    git_repository.ledger.change(
        Action.PIN, [RefMove.named(MAIN, one, two), RefMove.named("refs/heads/topic", new=two)], who="a", why=""
    )
    git(clone, "branch", "topic/mine")
    git(clone, "fetch", "--quiet", "up")
    with GitRepository(clone / ".git") as opened:
        assert opened.unfinished is None
        assert opened.ledger.head().counter == 2
        assert opened.ledger.recover() == []
        assert opened.refs.get(MAIN) == one
        assert opened.refs.get("refs/heads/topic") is None
    assert git(clone, "status", "--porcelain") == ""


def test_a_clone_that_took_the_ledger_but_not_the_artifacts_opens(git_repository, commits, git, tmp_path, fill):
    fill(git_repository, commits(git_repository, 1))
    clone = init_hub(tmp_path / "clone.git")
    git(clone, "fetch", "--quiet", str(git_repository.path), "refs/workbench/ledger:refs/workbench/ledger")
    with GitRepository(clone) as opened:
        assert opened.ledger.head().counter == 1
        assert set(opened.refs.all()) == {"refs/workbench/ledger"}


# --- read-only media --------------------------------------------------------------------------------------------------

_READ = """
import sys
from pathlib import Path
from workbench.store.git.repository import GitRepository
with GitRepository(Path(sys.argv[1])) as opened:
    unfinished = opened.unfinished and opened.unfinished.what
    print(opened.ledger.head().counter, opened.refs.get("refs/heads/main"), unfinished)
    print([finding.what for finding in opened.check() if "entry 2" in finding.what])
"""


def read_only(hub: Path) -> list[str]:
    """What is said of a hub on media that cannot be written to."""
    command = ["bwrap", "--dev-bind", "/", "/", "--ro-bind", str(hub), str(hub), sys.executable, "-c", _READ, str(hub)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@needs_bwrap
@pytest.mark.parametrize("left", ["all", "no note", "no folder"])
def test_what_is_finished_is_read_where_nothing_can_be_written(git_repository, commits, fill, left):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    cut_off(git_repository, one, two)
    git_repository.ledger.recover()
    if left == "no note":
        (git_repository.path / "workbench" / "projected").unlink()
    if left == "no folder":  # a mirror by git
        shutil.rmtree(git_repository.path / "workbench")
    assert read_only(git_repository.path) == [f"2 {two} None", "['the ledger stands at entry 2']"]


@needs_bwrap
def test_what_is_not_finished_is_told_where_nothing_can_be_written(git_repository, commits, fill):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    cut_off(git_repository, one, two)
    values, findings = read_only(git_repository.path)
    assert values.startswith(f"2 {one} entry 2 is recorded, but its refs are not all moved yet: cannot write ")
    assert "Read-only file system" in findings
