"""What a job sees below /in, as folders that the slot's user can read and nobody can write. Not here: mounting them."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from workbench.domain.errors import UserError, WorldError
from workbench.ports.sandbox import Job
from workbench.system.temporary import temporary_folder


def check_inside(path: str) -> str:
    """A relative path without ``..``, as a job may name below /in and /out."""
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\0" in path or str(pure) != path or path == ".":
        raise UserError(f"not a path inside the sandbox: {path!r}", "give a plain relative path such as 'src/lib.rs'")
    return path


@contextlib.contextmanager
def inputs(job: Job, uid: int | None) -> Iterator[list[tuple[Path, str]]]:
    """(host path, path inside) to mount, for the time of the block. A folder that the slot's user cannot reach is
    copied; a reachable one is bound where it lies."""
    if not job.files and not job.folders:
        yield []
        return
    with temporary_folder("sandbox", within=_shared_temporary(uid)) as base:
        root = base / "in"
        root.mkdir()
        _write(root, job.files)
        binds = [(root, "/in")]
        for inside, host in sorted(job.folders.items()):
            (root / check_inside(inside)).mkdir(parents=True, exist_ok=True)
            if uid is None or _reachable(host):
                binds.append((host.resolve(), f"/in/{inside}"))
            else:
                shutil.copytree(host, root / inside, symlinks=True, dirs_exist_ok=True)
        _open_to(uid, base)
        yield binds


def _shared_temporary(uid: int | None) -> Path | None:
    """A temporary folder that the slot's user can walk to: TMPDIR may be somebody's private one."""
    if uid is None:
        return None
    candidates = (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
    for folder in candidates:
        if folder.is_dir() and all(p.stat().st_mode & stat.S_IXOTH for p in (folder, *folder.resolve().parents)):
            return folder
    raise WorldError("no temporary folder can be reached by another user", "set TMPDIR to a folder with mode 1777")


def _write(root: Path, files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        target = root / check_inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _open_to(uid: int | None, base: Path) -> None:
    """Let the slot's user, and nobody else, come in and read. Copied modes and a strict umask do not matter."""
    if uid is None:
        return
    for folder, folders, files in os.walk(base):
        for name in folders:
            _chmod(Path(folder, name), 0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                _chmod(path, 0o755 if path.stat().st_mode & 0o100 else 0o644)
    os.chown(base, uid, uid)
    os.chmod(base, 0o500)


def _chmod(path: Path, mode: int) -> None:
    if not path.is_symlink():
        os.chmod(path, mode)


def _reachable(folder: Path) -> bool:
    """Whether any user may walk to ``folder`` and read all of its first level."""
    resolved = folder.resolve()
    if not all(parent.stat().st_mode & stat.S_IXOTH for parent in resolved.parents):
        return False
    for path in [resolved, *resolved.iterdir()]:
        mode = path.lstat().st_mode
        wanted = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
        if mode & wanted != wanted:
            return False
    return True
