"""What a job is given: folders that the slot's user can read and nobody can write below /in, and a /out on disk that
nobody else can reach. Not here: mounting them."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from workbench.domain.errors import Refused, UserError, WorldError
from workbench.ports.sandbox import Job
from workbench.sandbox import interpreter
from workbench.system.temporary import temporary_folder

PROGRAMS = "programs"  # below /in, first on PATH
_NETWORK_FILES = ("resolv.conf", "hosts", "nsswitch.conf", "gai.conf", "ssl", "ca-certificates", "pki")


@dataclass(frozen=True)
class Given:
    """(host path, path inside) of each mount, in order; and the folder that is the job's /out, where it is on disk."""

    binds: Sequence[tuple[Path, str]] = ()
    writable: Sequence[tuple[Path, str]] = ()
    out: Path | None = None


def check_inside(path: str) -> str:
    """A relative path without ``..``, as a job may name below /in and /out."""
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\0" in path or str(pure) != path or path == ".":
        raise UserError(f"not a path inside the sandbox: {path!r}", "give a plain relative path such as 'src/lib.rs'")
    return path


@contextlib.contextmanager
def given(job: Job, uid: int | None) -> Iterator[Given]:
    """What to mount, for the time of the block. A folder that the slot's user cannot reach is linked or copied; a
    reachable one is bound where it lies."""
    beyond, writable = _beyond(job, uid)
    if not (job.files or job.folders or job.limits.disk_bytes or job.tools) and job.python is None:
        yield Given(beyond, writable)
        return
    with temporary_folder("sandbox", within=_shared_temporary(uid, on_disk=job.limits.disk_bytes > 0)) as base:
        root = base / "in"
        root.mkdir()
        _write(root, job.files)
        binds = [(root, "/in"), *(_folder(root, inside, host, uid) for inside, host in sorted(job.folders.items()))]
        binds += _programs(job, root, uid)
        _open_to(uid, base)
        out = _own_folder(base / "out", uid) if job.limits.disk_bytes else None
        for name in job.out if out else ():
            _own_folder(base / "out" / check_inside(name), uid)
        mounted = [bind for bind in binds if bind[0] != root / bind[1].removeprefix("/in/")]
        yield Given([*mounted, *beyond], [*([(out, "/out")] if out else []), *writable], out)


def _folder(root: Path, inside: str, host: Path, uid: int | None) -> tuple[Path, str]:
    place = root / check_inside(inside)
    if uid is None or _reachable(host):
        place.mkdir(parents=True, exist_ok=True)
        return host.resolve(), f"/in/{inside}"
    _give(host.resolve(), place)
    return place, f"/in/{inside}"


def _give(source: Path, target: Path) -> None:
    """A folder as it is, links too; a file that everybody may read is linked, which costs nothing."""
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
    elif source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for inside in source.iterdir():
            _give(inside, target / inside.name)
    else:
        interpreter.put(source, target)


def _programs(job: Job, root: Path, uid: int | None) -> list[tuple[Path, str]]:
    """Our Python and the tools that are asked for, by their names in one folder."""
    folder = root / PROGRAMS
    binds: list[tuple[Path, str]] = []
    if job.python is not None:
        folder.mkdir()
        python, binds = interpreter.mounts(job.python, is_reachable=lambda path: uid is None or _reachable(path))
        for name in ("python", "python3"):
            (folder / name).symlink_to(python)
    for name in job.tools:
        found = shutil.which(name)
        if found is None or "/" in name or os.path.lexists(folder / name):
            continue  # what is not there is missed by who calls it
        folder.mkdir(exist_ok=True)
        interpreter.put(Path(found), folder / name)
    return binds


def _beyond(job: Job, uid: int | None) -> tuple[list[tuple[Path, str]], list[tuple[Path, str]]]:
    """Places of this machine. Refused where the slot's user could not use them: it is neither us nor root."""
    reads = [(path, str(path)) for path in job.beyond.read]
    writes = [(path, str(path)) for path in job.beyond.write]
    for path, wanted in ((p, w) for ps, w in ((job.beyond.read, 0), (job.beyond.write, stat.S_IWOTH)) for p in ps):
        if not path.exists():
            raise Refused(f"{path} is not on this machine", "make it, or mend what the stage needs")
        if uid is not None and not _is_open(path.resolve(), wanted):
            verb = "written" if wanted else "read"
            raise Refused(
                f"{path} cannot be {verb} by the sandbox's user, which is not root",
                f"let every user of this machine do it (chmod o+{'rwx' if wanted else 'rX'}), or run the hub as a user "
                "of its own",
            )
    if job.beyond.network:
        reads += [(path, str(path)) for path in (Path("/etc") / name for name in _NETWORK_FILES) if path.exists()]
    return reads, writes


def _shared_temporary(uid: int | None, *, on_disk: bool) -> Path | None:
    """A temporary folder that the slot's user can walk to (TMPDIR may be somebody's private one), and that is not
    likely to be in memory where what the job writes may be large."""
    if uid is None and (not on_disk or "TMPDIR" in os.environ):
        return None
    here, disk = Path(str(tempfile.gettempdir())), Path("/var/tmp")
    first: Sequence[Path] = (disk, here) if on_disk and "TMPDIR" not in os.environ else (here, Path("/tmp"), disk)
    candidates: Sequence[Path] = (*first, Path("/tmp"), Path("/dev/shm"))
    for folder in candidates:
        if folder.is_dir() and all(p.stat().st_mode & stat.S_IXOTH for p in (folder, *folder.resolve().parents)):
            return folder
    raise WorldError("no temporary folder can be reached by another user", "set TMPDIR to a folder with mode 1777")


def _write(root: Path, files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        target = root / check_inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _own_folder(folder: Path, uid: int | None) -> Path:
    folder.mkdir(mode=0o700)
    if uid is not None:
        os.chown(folder, uid, uid)
    return folder


def _open_to(uid: int | None, base: Path) -> None:
    """Let the slot's user, and nobody else, come in and read. Copied modes and a strict umask do not matter. What is
    another's as well, by a link, is readable already and stays as it is."""
    if uid is None:
        return
    for folder, folders, files in os.walk(base):
        for name in folders:
            _chmod(Path(folder, name), 0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink() and path.stat().st_nlink == 1:
                _chmod(path, 0o755 if path.stat().st_mode & 0o100 else 0o644)
    os.chown(base, uid, uid)
    os.chmod(base, 0o500)


def _chmod(path: Path, mode: int) -> None:
    if not path.is_symlink():
        os.chmod(path, mode)


def _is_open(path: Path, wanted: int) -> bool:
    """Whether any user may walk to a place and use it; what is in it is its own matter."""
    mode = path.stat().st_mode
    wanted |= stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
    return mode & wanted == wanted and all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)


def _reachable(folder: Path) -> bool:
    """Whether any user may walk to a folder and read all of its first level, or to a file and read it."""
    resolved = folder.resolve()
    if not all(parent.stat().st_mode & stat.S_IXOTH for parent in resolved.parents):
        return False
    for path in [resolved, *(resolved.iterdir() if resolved.is_dir() else ())]:
        mode = path.lstat().st_mode
        wanted = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
        if mode & wanted != wanted:
            return False
    return True
