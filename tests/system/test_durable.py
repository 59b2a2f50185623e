"""Files whole or not at all, and what is synced for it. The power cuts themselves are in ``tests/end_to_end``."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.system import durable

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.write_file(path, b"one")
    durable.write_file(path, b"two", mode=0o400)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"two", 0o400)
    with pytest.raises(TypeError):
        durable.write_file(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["file"]


def test_folders_are_made_also_when_some_are_there(tmp_path: Path) -> None:
    for _ in range(2):
        durable.make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").touch()
    for folder in ("file", "file/below"):
        with pytest.raises((FileExistsError, NotADirectoryError)):
            durable.make_folder(tmp_path / folder)


def synced(folder: Path, code: str) -> list[str]:
    """What a program syncs, in order, as paths below ``folder``."""
    traced = folder.parent / "trace"
    program = [sys.executable, "-c", f"from pathlib import Path\nfrom workbench.system import durable\n{code}"]
    command = ["strace", "-f", "-y", "-e", "trace=fsync,rename,renameat,renameat2,mkdir", "-o", str(traced), *program]
    subprocess.run(command, check=True, cwd=folder)
    found = []
    for line in traced.read_text().splitlines():
        call = line.split(maxsplit=1)[1].partition("(")[0]
        if not call.isalnum():
            continue  # how a process ended
        path = line.partition("<")[2].partition(">")[0] if call == "fsync" else line.split('"')[1]
        if path.startswith(str(folder)) or not path.startswith("/"):
            found.append(f"{call} {os.path.relpath(os.path.join(folder, path), folder)}")
    return found


@needs_strace
def test_the_bytes_are_synced_before_the_name_and_the_name_with_its_folder(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    done = synced(place, "durable.write_file(Path('file'), b'x')")
    assert [step.split()[0] for step in done] == ["fsync", "rename", "fsync"]
    assert done[-1] == "fsync ."


@needs_strace
def test_new_folders_are_synced_up_to_the_first_old_one(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    done = synced(place, "durable.make_folder(Path('a/b/c'))")
    assert done == ["mkdir a", "fsync .", "mkdir a/b", "fsync a", "mkdir a/b/c", "fsync a/b"]


def test_a_file_system_that_syncs_no_folders_is_none_the_worse() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        os.fsync(os.open("/proc", os.O_RDONLY))
    durable.sync_folder(Path("/proc"))


@needs_strace
def test_a_folder_is_synced_again_only_when_it_has_changed(tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / "a").mkdir(parents=True)
    code = """
import os
folders = durable.Folders()
folders.sync([Path("a"), Path("gone")])  # it was changed just now, so its time tells nothing
folders.sync([Path("a"), Path("a")])
os.utime("a", (1, 1))
for _ in range(3):
    folders.sync([Path("a")])
Path("a/b").mkdir()
folders.sync([Path("a")])
"""
    assert synced(place, code) == ["fsync a", "fsync a", "fsync a", "mkdir a/b", "fsync a"]


@needs_strace
def test_a_tree_is_synced_with_all_that_is_in_it_and_its_name(tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "b" / "file").write_text("x")
    (place / "a" / "link").symlink_to("nowhere")
    os.mkfifo(place / "a" / "fifo")
    done = synced(place, "durable.sync_tree(Path('a'))")
    assert done == ["fsync a/b/file", "fsync a/b", "fsync a", "fsync ."]
