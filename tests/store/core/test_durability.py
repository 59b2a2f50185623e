"""The order in which a change comes to the disk, as the kernel is asked for it: objects, ledger, refs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.store.git.repository import GitRepository

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

CHANGE = """
import sys
from pathlib import Path
from workbench.domain.ids import ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.store.git.repository import GitRepository
hub, one = sys.argv[1:]
with GitRepository(Path(hub)) as repository:
    refs = ("refs/heads/new/folder/topic", "refs/workbench/channels/active")
    repository.ledger.change(Action.PIN, [RefMove.named(ref, new=ObjectId(one)) for ref in refs], who="Ada", why="")
    print("told", flush=True)
"""
_NAMED = re.compile(r'(?:rename|renameat|renameat2|link|linkat)\(.*, "([^"]+)"')


def events(trace: Path, hub: Path) -> list[str]:
    """``name <path>`` where a file got its name, ``sync <path>``, and ``told``; paths below the hub."""
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        call = line.split(maxsplit=1)[1]
        if call.startswith(("fsync(", "fdatasync(")):
            path, what = call.partition("<")[2].partition(">")[0], "sync"
        elif match := _NAMED.match(call):
            path, what = match[1], "name"
        elif call.startswith("write(1") and "told" in call:
            found.append("told")
            continue
        else:
            continue
        found.append(f"{what} {path.removeprefix(f'{hub}/')}")
    return found


def test_each_step_of_a_change_is_on_disk_before_the_next(
    git_repository: GitRepository, commits, tmp_path: Path
) -> None:
    hub = git_repository.path
    one = commits(git_repository, 1)[0]
    pack = hub / "objects" / "pack"
    (pack / "tmp").touch()  # as a push's pack comes in: nobody synced it yet
    (pack / "tmp").unlink()
    command = ["strace", "-f", "-y", "-s", "400", "-o", str(tmp_path / "trace")]
    command += ["-e", "trace=fsync,fdatasync,rename,renameat,renameat2,link,linkat,write"]
    subprocess.run([*command, sys.executable, "-c", CHANGE, str(hub), one], check=True, capture_output=True)
    done = events(tmp_path / "trace", hub)
    ledger, topic, active = (
        done.index(f"name {ref}")
        for ref in ("refs/workbench/ledger", "refs/heads/new/folder/topic", "refs/workbench/channels/active")
    )
    before = done[:ledger]
    assert {"sync objects/pack", "sync workbench/begun", "sync refs/workbench/ledger.lock"} <= {*before}
    objects = [event for event in done if event.startswith("name objects/")]
    assert len(objects) == 3  # the entry, its tree, its commit
    for event in objects:
        assert f"sync {Path(event.split()[1]).parent}" in before[before.index(event) :]
    assert not any("objects/" in event for event in done[ledger:])
    assert "sync refs/workbench" in done[ledger : min(topic, active)]
    last = done[max(topic, active) : done.index("told")]
    folders = ("refs/heads/new/folder", "refs/heads/new", "refs/heads", "refs/workbench/channels", "refs/workbench")
    assert {f"sync {folder}" for folder in folders} <= {*last}
