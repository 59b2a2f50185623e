"""The settings that the Git adapter owns, the doctor, maintenance, and which repository is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.domain.errors import Refused
from workbench.domain.ids import ZERO_ID
from workbench.domain.ledger import Action, RefMove
from workbench.pipeline.integrity import whole
from workbench.store.git import settings
from workbench.store.git.doctor import leftovers
from workbench.store.git.repository import GitRepository, common_dir
from workbench.store.git.settings import CLONE, HUB, differing, init_clone, init_hub


def findings(repository: GitRepository) -> dict[str, str]:
    return {finding.what: finding.severity for finding in repository.check()}


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


def test_settings_that_only_their_owner_may_read_stay_so(hub, git):
    git(hub, "config", "receive.unpackLimit", "100")
    (hub / "config").chmod(0o600)
    init_hub(hub)
    assert differing(hub, HUB) == []
    assert (hub / "config").stat().st_mode & 0o777 == 0o600


def test_init_refuses_a_folder_that_holds_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(Refused, match="not a bare Git repository"):
        init_hub(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_doctor_finds_missing_hooks_leftovers_locks_and_lost_objects(git_repository, commits, fill):
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


def test_a_pack_that_a_killed_push_kept_is_not_kept_for_ever(git_repository):
    """As a killed receive-pack leaves the mark; a person's own mark, and that of a push of this hour, stay."""
    pack = git_repository.path / "objects" / "pack"
    said = {"old": "receive-pack 7 on host\n", "young": "receive-pack 8 on host\n", "mine": "not to be packed\n"}
    marks = {name: pack / f"pack-{name}.keep" for name in said}
    for name, path in marks.items():
        path.write_text(said[name])
        if name != "young":
            os.utime(path, (0, 0))
    assert leftovers(git_repository.path) == [marks["old"]]


def test_doctor_is_content_with_a_healthy_hub(git_repository, commits, fill):
    fill(git_repository, commits(git_repository, 1))
    (git_repository.path / "hooks").mkdir()
    for name in ("pre-receive", "proc-receive"):
        hook = git_repository.path / "hooks" / name
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o755)
    git_repository.maintain()
    assert {finding.severity for finding in git_repository.check()} == {"ok"}


def test_maintenance_packs_writes_a_bitmap_and_sweeps_and_loses_nothing(git_repository, commits, git, fill):
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


def test_a_large_pack_is_never_rewritten(git_repository, commits, git, monkeypatch, fill):
    from workbench.store.git import maintenance

    monkeypatch.setattr(maintenance, "KEEP_BYTES", 1)
    fill(git_repository, commits(git_repository, 5))
    git_repository.maintain()
    packs = set((git_repository.path / "objects" / "pack").glob("*.pack"))
    git_repository.ledger.change(Action.HANDLED, [], who="a", why="more")
    git_repository.maintain()
    assert packs < set((git_repository.path / "objects" / "pack").glob("*.pack"))


def partial_or_shallow(git, source: Path, clone: Path, *how: str) -> Path:
    git(source, "config", "uploadpack.allowFilter", "true")
    git(source.parent, "clone", "--quiet", *how, f"file://{source}", str(clone))
    return clone / ".git"


def series(repository: GitRepository, number: int) -> None:
    """So many commits of main, one after the other."""
    last, objects = ZERO_ID, repository.objects
    for i in range(number):
        parents = [last] if i else []
        tree = objects.add_tree(None, {"file": f"{i}\n".encode()})
        new = objects.add_commit(tree, parents=parents, message=str(i), who="a", time_ms=i)
        repository.refs.swap([RefMove.named("refs/heads/main", last, new)])
        last = new


def test_a_partial_clone_is_maintained_and_lacks_no_bitmap(git_repository, git, tmp_path):
    series(git_repository, 4)
    git_dir = partial_or_shallow(git, git_repository.path, tmp_path / "clone", "--filter=blob:none")
    assert list((git_dir / "objects" / "pack").glob("*.promisor"))
    with GitRepository(git_dir) as repository:
        new = repository.objects.add_commit(
            repository.objects.add_tree(None, {"new": b"1"}), parents=[], message="m", who="a", time_ms=0
        )
        repository.refs.swap([RefMove.named("refs/heads/mine", new=new)])
        for _ in range(2):
            assert "packed what is loose" in " ".join(repository.maintain())
        assert not (git_dir / "objects" / new[:2] / new[2:]).exists()
        assert not [what for what in findings(repository) if "bitmap" in what]
    git(git_dir, "fsck", "--strict")


def test_a_shallow_clone_is_whole_up_to_where_it_was_cut(git_repository, git, tmp_path):
    series(git_repository, 4)
    git_dir = partial_or_shallow(git, git_repository.path, tmp_path / "clone", "--depth=2")
    with GitRepository(git_dir) as repository:
        main = repository.resolve("main")
        assert [commit.message.strip() for commit in repository.objects.history(main)] == ["3", "2"]
        found = list(whole(repository.objects, [main], git_dir))
        assert [finding.severity for finding in found] == ["ok"]
        git(git_dir, "fetch", "--quiet", "--unshallow")
        assert len(repository.objects.history(main)) == 4
        (git_dir / "shallow").write_text("0" * 40 + "\n")
        assert len(repository.objects.history(main)) == 4


def test_a_worktree_and_a_plain_clone_find_the_one_store(git_repository, commits, git, tmp_path, fill):
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
