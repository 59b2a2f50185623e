"""Nothing that was acknowledged is gone when the power goes, and a change that was cut off is all there or not at all.

``powercut.py`` beside this file makes the cuts, in a process and mount namespace whose end unmounts everything and ends
the hub's processes, however it ends. Before the folders of refs and packs were synced, every push, pin, publication and
unbundle was lost on both file systems.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NAMESPACE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
PROGRAMS = ("unshare", "mount", "losetup", "mkfs.xfs", "mkfs.ext4", "git")
SHORT = ("pins=4", "publications=5", "checkpoints=5", "appends=20", "unbundles=2", "inits=1", "deletions=2", "pushes=6")
LONG = ("pins=60", "publications=60", "checkpoints=60", "appends=200", "unbundles=30", "inits=10", "deletions=60")


@pytest.fixture
def machine() -> None:
    """Skips where power cuts cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("power cuts are made by root: it mounts file systems")
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install xfsprogs e2fsprogs mount util-linux)")
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine gives no mount and process namespace of one's own")
    if subprocess.run(["losetup", "--find"], capture_output=True).returncode != 0:
        pytest.skip("this machine has no loop devices")
    known = Path("/proc/filesystems").read_text().split()
    if "xfs" not in known or "ext4" not in known:
        pytest.skip("this kernel does not know xfs and ext4")


def cut(folder: Path, file_system: str, *wanted: str) -> dict[str, object]:
    script = Path(__file__).with_name("powercut.py")
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "WORKBENCH_"))}
    done = subprocess.run(
        [*NAMESPACE, sys.executable, str(script), str(folder), file_system, *wanted],
        env=keep | {"WORKBENCH_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return dict(json.loads(done.stdout))


def count(wanted: tuple[str, ...]) -> int:
    return sum(int(each.partition("=")[2]) for each in wanted)


@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
def test_nothing_acknowledged_is_lost_in_a_power_cut(machine: None, tmp_path: Path, file_system: str) -> None:
    found = cut(tmp_path, file_system, *SHORT)
    assert (found["lost"], found["damaged"]) == ([], [])
    assert found["acknowledged"] >= count(SHORT)


def test_a_push_that_the_power_cut_off_is_all_there_or_not_at_all(machine: None, tmp_path: Path) -> None:
    found = cut(tmp_path, "ext4", "moments=25")
    assert (found["lost"], found["damaged"]) == ([], [])


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("wanted", [LONG, ("pushes=300",), ("moments=400",)], ids=["commands", "pushes", "moments"])
@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
def test_nothing_is_lost_however_often_the_power_goes(
    machine: None, tmp_path: Path, file_system: str, wanted: tuple[str, ...]
) -> None:
    found = cut(tmp_path, file_system, *wanted)
    assert (found["lost"], found["damaged"]) == ([], [])
    assert wanted == ("moments=400",) or found["acknowledged"] >= count(wanted)
