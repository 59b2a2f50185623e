"""The Git adapter among other writers: stale locks are removed, what was cut off is finished."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
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

MAIN, ACTIVE = "refs/heads/main", "refs/workbench/channels/active"


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
        Action.PIN, [RefMove.named(MAIN, new=one), RefMove.named(ACTIVE, new=one)], who="a", why=""
    )
    assert git_repository.ledger.head() == entry
    assert locks.lock_files(git_repository.path) == []


def test_recover_removes_every_stale_lock(git_repository, commits, hasty, fill):
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
            with git_repository.refs.prepared([RefMove.named(MAIN, new=one)], patience_s=1.0):
                pass
        owner.stdin.close()
    git_repository.refs.swap([RefMove.named(MAIN, new=one)])


def holding(folder: Path, one: ObjectId, *told: str, **environment: str) -> subprocess.Popen[bytes]:
    """A git of somebody, started in ``folder``, that holds the lock of main."""
    owner = subprocess.Popen(
        ["git", *told, "update-ref", "--stdin"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    owner.stdin.write(f"start\nupdate {MAIN} {one}\nprepare\n".encode())
    owner.stdin.flush()
    assert owner.stdout.readline() + owner.stdout.readline() == b"start: ok\nprepare: ok\n"
    return owner


@pytest.mark.parametrize(
    ("folder", "told", "environment"),
    [
        ("", [], {"GIT_DIR": "hub.git"}),
        ("", ["--git-dir=hub.git"], {}),
        ("", ["--git-dir", "hub.git"], {}),
        ("", ["--git-dir=link.git"], {}),
        ("", ["-C", "link.git"], {}),
        ("inner", [], {"GIT_DIR": "../link.git"}),
        ("hub.git/refs", [], {}),
        ("linked/below", [], {}),
    ],
)
def test_the_lock_of_a_git_that_lives_is_left_alone_however_it_was_told_where(
    git_repository, commits, hasty, fill, git, tmp_path, folder, told, environment
):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    (tmp_path / "link.git").symlink_to(git_repository.path)
    (tmp_path / "inner").mkdir()
    git(git_repository.path, "worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"), one)
    (tmp_path / "linked" / "below").mkdir()
    with holding(tmp_path / folder, two, *told, **environment) as owner:
        assert locks.foreign_git(git_repository.path) == [owner.pid]
        with pytest.raises(Busy, match=str(owner.pid)):
            with git_repository.refs.prepared([RefMove.named(MAIN, one, two)], patience_s=1.0):
                pass
        owner.stdin.write(b"commit\n")
        owner.stdin.close()
        assert owner.stdout.read() == b"commit: ok\n"
    assert git_repository.refs.get(MAIN) == two


def test_beside_a_git_that_may_work_here_only_an_old_lock_is_removed(git_repository, commits, fill, tmp_path):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    (tmp_path / "a").mkdir()
    with holding(tmp_path / "a", two, "--git-dir=../hub.git"):
        (tmp_path / "a").rename(tmp_path / "inner")
        (tmp_path / "outer").mkdir()
        (tmp_path / "inner").rename(tmp_path / "outer" / "inner")  # from here there is no ../hub.git
        assert locks.foreign_git(git_repository.path) == []
        lock = git_repository.path / f"{MAIN}.lock"
        assert locks.remove_stale(git_repository.path, [seen_long_ago(lock)]) == []
        os.utime(lock, (0, 0))
        assert locks.remove_stale(git_repository.path, [seen_long_ago(lock)]) == [lock]


def seen_long_ago(lock: Path) -> locks.Sighting:
    sighting = locks.Sighting.of(lock)
    assert sighting is not None
    return replace(sighting, seen_s=0.0)


def test_a_git_that_works_elsewhere_does_not_keep_a_stale_lock(git_repository, commits, hasty, fill, tmp_path):
    one, two = commits(git_repository, 2)
    fill(git_repository, [one])
    with GitRepository(init_hub(tmp_path / "other.git")) as other:
        fill(other, [commits(other, 1)[0]])
    owner = subprocess.Popen(["git", "cat-file", "--batch"], cwd=tmp_path / "other.git", stdin=subprocess.PIPE)
    with owner:
        (git_repository.path / f"{MAIN}.lock").touch()
        git_repository.refs.swap([RefMove.named(MAIN, one, two)])


def test_a_prepared_change_of_ours_is_not_swept_by_another_process(git_repository, commits, hasty):
    one = commits(git_repository, 1)[0]
    with git_repository.refs.prepared([RefMove.named(MAIN, new=one)]) as change:
        with GitRepository(git_repository.path) as other:
            assert other.refs.sweep() == []
        change.commit()
    assert git_repository.refs.get(MAIN) == one


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
        for write in (lambda: opened.ledger.undo(who="a"), lambda: opened.ledger.swap(RefMove.named(MAIN, one, two))):
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
