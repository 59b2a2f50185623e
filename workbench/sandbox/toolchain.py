"""The Rust toolchain as a folder that a slot's user can read.

A toolchain in a private home (rustup's place) cannot be reached by another user. Started as root, its compiler and
libraries are hard-linked once into a shared folder (nothing is copied on one file system); otherwise it is used where
it lies. Documentation and sources stay out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from workbench.system import programs

SHARED = Path("/var/cache/workbench/toolchains")
_PROGRAMS = ("rustc", "rustdoc", "rustfmt", "clippy-driver")


@cache
def rust(place: Path = SHARED) -> Path:
    """The sysroot to bind; ToolMissing without a rustc that works. Found once per process."""
    sysroot = programs.sysroot(programs.look("rustc"))
    if os.geteuid() != 0 or _reachable(sysroot):
        return sysroot
    return _shared(place, "rust", sysroot / "bin" / "rustc", lambda folder: _link(sysroot, folder))


def shared(name: str, identity: Path, fill: Callable[[Path], None]) -> Path:
    """A folder for all users of this machine, filled once for what ``identity`` is now, a file or a folder."""
    return _shared(SHARED, name, identity, fill)


def _reachable(sysroot: Path) -> bool:
    return all(path.stat().st_mode & stat.S_IXOTH for path in (sysroot, *sysroot.parents))


def _shared(place: Path, name: str, identity: Path, fill: Callable[[Path], None]) -> Path:
    found = identity.stat()
    text = f"{identity}\n{found.st_ino} {found.st_size} {found.st_mtime_ns}"
    target = place / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    building = Path(tempfile.mkdtemp(prefix=target.name + ".", dir=target.parent))
    try:
        fill(building)
        for folder, _, _ in os.walk(building):
            os.chmod(folder, 0o755)
        with contextlib.suppress(OSError):  # somebody else was first
            building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _wanted(sysroot: Path) -> list[Path]:
    programs = [sysroot / "bin" / name for name in _PROGRAMS]
    libraries = (path for path in (sysroot / "lib").rglob("*") if "src" not in path.relative_to(sysroot).parts)
    return [path for path in (*programs, *libraries) if path.is_file()]


def _link(sysroot: Path, building: Path) -> None:
    for source in _wanted(sysroot):
        place = building / source.relative_to(sysroot)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source.resolve(), place)
        except OSError:  # another file system, or one without links
            shutil.copy2(source, place)
