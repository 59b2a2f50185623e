"""Temporary folders: gone with the block, swept after a kill, and never taken from an owner who lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workbench.system import temporary
from workbench.system.temporary import sweep, temporary_folder

OWNER = """
import sys, time
from pathlib import Path
from workbench.system.temporary import temporary_folder
with temporary_folder("test", within=Path(sys.argv[1])) as folder:
    (folder / "file").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


def owner(base: Path) -> tuple[subprocess.Popen[str], Path]:
    """Another process that holds a folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str], *, kill: bool) -> None:
    if kill:
        process.send_signal(signal.SIGKILL)
    process.communicate()


def make_old(folder: Path) -> None:
    then = time.time() - 2 * temporary.YOUNG_S
    os.utime(folder, (then, then))


def test_a_folder_goes_with_its_block_also_when_it_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with temporary_folder("test", within=tmp_path) as folder:
            (folder / "inside").mkdir()
            (folder / "inside" / "file").write_text("x")
            (folder / "inside").chmod(0o500)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_owner_left_is_swept_by_whoever_comes_next(tmp_path: Path) -> None:
    process, folder = owner(tmp_path)
    end(process, kill=True)
    assert (folder / "file").exists()
    make_old(folder)
    process, other = owner(tmp_path)
    assert not folder.exists()
    assert other.exists()
    end(process, kill=False)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_an_owner_who_lives_is_left_alone_however_old(tmp_path: Path) -> None:
    process, folder = owner(tmp_path)
    make_old(folder)
    assert sweep(tmp_path) == []
    assert (folder / "file").exists()
    end(process, kill=True)
    assert sweep(tmp_path) == [folder]


def test_a_folder_that_was_just_made_is_left_alone(tmp_path: Path) -> None:
    process, folder = owner(tmp_path)
    end(process, kill=True)
    assert sweep(tmp_path) == []
    assert folder.exists()


def test_only_folders_by_our_names_are_swept_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    base = tmp_path / "base"
    others = ("workbench", "workbench-demo", "workbench-temporary-demo", "workbench-temporary-notes-of-mine")
    for name in others:
        (base / name).mkdir(parents=True)
    (base / "workbench-temporary-file-abcdefgh").write_text("x")
    (base / "workbench-temporary-link-abcdefgh").symlink_to(outside)
    stale = base / "workbench-temporary-test-abcdefgh"
    stale.mkdir()
    (stale / "link").symlink_to(outside)
    for path in base.iterdir():
        os.utime(path, (0, 0), follow_symlinks=False)
    assert sweep(base) == [stale]
    assert (outside / "kept").exists()
    assert len(list(base.iterdir())) == len(others) + 2
