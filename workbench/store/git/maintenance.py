"""Housekeeping beside live readers and writers: pack what is loose, keep the bitmaps, let garbage go after two weeks.

Large packs carry a ``.keep`` and are never rewritten, unless much of what is packed is garbage. Never prunes at once:
an object that a writer has added and not yet named would be lost.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from workbench.domain.errors import WorkbenchError
from workbench.store.git import locks, process
from workbench.store.git.doctor import is_partial, leftovers
from workbench.store.git.refs import GitRefs
from workbench.system import durable
from workbench.system.locks import Busy

KEEP_BYTES = 32 << 20
GRACE = "2.weeks.ago"
DUE_PACKS = 8  # a pipeline leaves about that many
DUE_LOOSE = 2000
_INDEX = "objects/pack/multi-pack-index"
_GARBAGE = 0.1  # of the packed objects: above it the large packs are rewritten too
_REASON = "workbench: a large pack is not rewritten\n"


def is_due(git_dir: Path) -> bool:
    """Whether many packs came in that no bitmap covers, or many loose objects. Costs a look at three folders."""
    objects = git_dir / "objects"
    try:
        covered = (objects / "pack" / "multi-pack-index").stat().st_mtime
    except FileNotFoundError:
        covered = 0.0
    indexes = [path.stat().st_mtime for path in (objects / "pack").glob("*.idx")]
    loose = 256 * sum(1 for _ in (objects / "17").glob("*"))  # as git itself guesses
    return sum(written > covered for written in indexes) >= DUE_PACKS or loose >= DUE_LOOSE


def maintain(git_dir: Path, refs: GitRefs) -> Sequence[str]:
    """What was done, a sentence each."""
    try:
        with locks.maintaining(git_dir):
            return list(_steps(git_dir, refs))
    except Busy:
        return ["another maintenance is running: nothing to do"]


def _steps(git_dir: Path, refs: GitRefs) -> Iterator[str]:
    for path in refs.sweep():
        yield f"removed {path.relative_to(git_dir)}, which a git that was killed had left"
    swept = leftovers(git_dir)
    for path in swept:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    if swept:
        yield f"removed {len(swept)} temporary files of killed git programs"
    _locking(git_dir, ["packed-refs"], "pack-refs", "--all", "--no-prune")
    durable.sync_folder(git_dir)  # before the files go that the refs are read from until then
    _locking(git_dir, ["packed-refs", *_loose_refs(git_dir)], "pack-refs", "--all")
    durable.sync_folder(git_dir)
    yield "packed the refs"
    if is_partial(git_dir):
        process.run(git_dir, "repack", "-d", "--quiet", timeout_s=3600)
        yield "packed what is loose; the packs of a partial clone stay as they are"
    elif _mostly_used(git_dir):
        kept = _keep_large(git_dir)
        process.run(git_dir, "repack", "--geometric=2", "-d", "--no-write-bitmap-index", "--quiet", timeout_s=3600)
        yield f"repacked what is loose or small{f', kept {kept} large packs as they are' if kept else ''}"
    else:
        for path in (git_dir / "objects" / "pack").glob("*.keep"):
            if path.read_text(errors="replace") == _REASON:
                path.unlink()
        process.run(git_dir, "repack", "--cruft", f"--cruft-expiration={GRACE}", "-d", "--quiet", timeout_s=3600)
        yield "repacked everything: more than a tenth of it was garbage"
    process.run(git_dir, "prune", f"--expire={GRACE}", timeout_s=3600)
    yield _bitmap(git_dir)


def _locking(git_dir: Path, names: Sequence[str], *arguments: str) -> None:
    """Run a git that takes the locks of ``names``: what it leaves when it is killed is known to be ours."""
    with closing(locks.LockNote(git_dir)) as note:
        note.name(names)
        done = process.attempt(git_dir, *arguments, timeout_s=3600, pass_fds=[note.fd])
        if done.returncode >= 0:
            note.clear()
    if done.returncode:
        raise process.explain(f"git {arguments[0]}", done.stderr.decode(errors="replace"))


def _loose_refs(git_dir: Path) -> list[str]:
    return [path.relative_to(git_dir).as_posix() for path in (git_dir / "refs").rglob("*") if path.is_file()]


def _bitmap(git_dir: Path) -> str:
    if not any((git_dir / "objects" / "pack").glob("*.pack")):
        return "nothing is packed yet"
    if is_partial(git_dir):
        _locking(git_dir, [_INDEX], "multi-pack-index", "write", "--no-progress")
        return "wrote the multi-pack index; a partial clone has no bitmap"
    with suppress(WorkbenchError):
        _locking(git_dir, [_INDEX], "multi-pack-index", "write", "--bitmap", "--no-progress")
        return "wrote the multi-pack index and its bitmap"
    # An object that a writer added since the repack is loose, so no bitmap can cover it: the next maintenance does.
    _locking(git_dir, [_INDEX], "multi-pack-index", "write", "--no-progress")
    return "wrote the multi-pack index; its bitmap waits for the next time, because something was added meanwhile"


def _keep_large(git_dir: Path) -> int:
    kept = 0
    for pack in (git_dir / "objects" / "pack").glob("pack-*.pack"):
        if pack.stat().st_size >= KEEP_BYTES:
            keep = pack.with_suffix(".keep")
            if not keep.exists():
                keep.write_text(_REASON)
            kept += 1
    return kept


def _mostly_used(git_dir: Path) -> bool:
    counted = process.run(git_dir, "count-objects", "-v").decode()
    packed = next(int(line.split()[1]) for line in counted.splitlines() if line.startswith("in-pack:"))
    if packed < 1000:
        return True
    reached = process.run(git_dir, "rev-list", "--objects", "--all", "--count", "--use-bitmap-index", timeout_s=3600)
    return int(reached) >= packed * (1 - _GARBAGE)
