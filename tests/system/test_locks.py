"""One lock between processes: exclusive, shared, with patience, and gone with its owner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.system import locks

OWNER = """
import sys
from pathlib import Path
from workbench.system import locks
with locks.held(Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


def owner(path: Path, how: str = "alone") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_who_has_it_alone_keeps_all_others_out_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = owner(path)
    assert locks.is_held(path)
    for shared in (False, True):
        with pytest.raises(locks.Busy, match=rf"\(pid {process.pid}\) has held .*lock for 0.02 s"):
            locks.hold(path, shared=shared, patience_s=0.02)
    process.communicate()
    assert not locks.is_held(path)


def test_a_shared_lock_is_held_by_several(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = owner(path, "shared")
    with locks.held(path, shared=True):
        assert not locks.is_held(path)  # nobody has it alone
    with pytest.raises(locks.Busy), locks.held(path):
        pass
    process.communicate()


def test_a_killed_owner_has_let_go(tmp_path: Path) -> None:
    process = owner(tmp_path / "lock")
    process.kill()
    process.communicate()
    with locks.held(tmp_path / "lock") as file:
        assert os.pread(file, 32, 0) == b"%d\n" % os.getpid()


def test_patience_pays_when_the_owner_lets_go_in_time(tmp_path: Path) -> None:
    process = owner(tmp_path / "lock")
    assert process.stdin is not None
    process.stdin.close()
    with locks.held(tmp_path / "lock", patience_s=60):
        assert locks.is_held(tmp_path / "lock")
    process.wait()


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(locks.WorldError, match=r"cannot write .*missing/lock: No such file"):
        locks.hold(tmp_path / "missing" / "lock")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(locks.WorldError):
        locks.hold(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_nobody_made_is_not_held(tmp_path: Path) -> None:
    assert not locks.is_held(tmp_path / "lock")
    assert not (tmp_path / "lock").exists()
