"""Our own interpreter and libraries, as a job can be given them; nothing else of this machine.

The sandbox has the system's programs. What must be the same inside as here (the Python, the version of a library) is
linked into a folder, or copied where it cannot be linked. Not here: mounting it (``staging``).
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from workbench.sandbox import toolchain

PACKAGES = "/opt/packages"  # where ``mounts`` puts libraries; the interpreter lies where it does here
_UNWANTED = ("site-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3")


def mounts(distributions: Sequence[str], *, is_reachable: Callable[[Path], bool]) -> tuple[str, list[tuple[Path, str]]]:
    """Our interpreter's path inside; and (host path, path inside) of what to mount for it, the distributions and what
    they require. What the job's user cannot reach is linked into a shared folder first, once for this machine."""
    packages = sorted({each for name in distributions for each in _files_of(name, set())})
    mounted = [*_reachable_packages(packages, is_reachable)]
    base, real = Path(os.path.realpath(sys.base_prefix)), os.path.realpath(sys.executable)
    if base.is_relative_to("/usr"):  # the sandbox has it
        return real, mounted
    place = base
    if not is_reachable(base):
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        place = toolchain.shared("python", Path(real), lambda folder: _link_base(folder, name))
    return real, [(place, str(base)), *mounted]


def _link_base(folder: Path, name: str) -> None:
    base, real = Path(sys.base_prefix), Path(os.path.realpath(sys.executable))
    put(real, folder / "bin" / real.name)
    for library in (base / "lib").glob("*.so*"):
        put(library, folder / "lib" / library.name)
    put(base / "lib" / name, folder / "lib" / name)


def _reachable_packages(packages: Sequence[Path], is_reachable: Callable[[Path], bool]) -> Iterator[tuple[Path, str]]:
    for source in packages:
        place = source
        if not is_reachable(source):
            place = toolchain.shared(f"package-{source.name}", source, partial(_put_into, source)) / source.name
        yield place, f"{PACKAGES}/{source.name}"


def _put_into(source: Path, folder: Path) -> None:
    put(source, folder / source.name)


def _files_of(distribution: str, seen: set[str]) -> Iterator[Path]:
    """What a distribution and those that it requires have put beside each other; what is not installed is left out."""
    name = re.sub(r"[-_.]+", "-", distribution).lower()
    if name in seen or len(seen) > 1000:
        return
    seen.add(name)
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return
    tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "/", "__pycache__")}
    for top in tops:
        place = Path(str(found.locate_file(top)))
        if place.exists() and place.suffix != ".pth":
            yield place
    for line in found.requires or ():
        wanted = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
        if wanted and "extra ==" not in line:
            yield from _files_of(wanted[0], seen)


def put(source: Path, target: Path) -> None:
    """A file or folder for any user to read: linked where that does, else copied. Nothing of the source changes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        target.mkdir(exist_ok=True)
        for inside in sorted(source.iterdir()):
            if inside.name not in _UNWANTED:
                put(inside, target / inside.name)
        return
    real = Path(os.path.realpath(source))
    if not real.is_file():
        return
    mode = real.stat().st_mode
    if mode & 0o004:
        try:
            os.link(real, target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(real, target)
    target.chmod(0o755 if mode & 0o100 else 0o644)
