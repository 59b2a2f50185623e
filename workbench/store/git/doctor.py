"""What ``doctor`` finds in a Git repository, each finding with the command that mends it. Nothing is changed here."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from workbench.domain.errors import WorkbenchError, WorldError
from workbench.domain.ids import ZERO_ID
from workbench.ports.store import Finding
from workbench.store.git import locks, process, settings
from workbench.store.git.copies import damaged_indexes
from workbench.store.git.ledger import LedgerLog
from workbench.store.git.objects import ObjectStore
from workbench.store.git.refs import GitRefs

MIN_GIT = (2, 39, 5)
HOOKS = ("pre-receive", "proc-receive")
LEFT_AFTER_S = 3600
MEND = "workbench doctor --mend"
MAX_SETTINGS = 5  # that are named one by one
_LEFTOVERS = re.compile(r"tmp_(?:objdir-incoming-|obj_|object_git2_|pack_|idx_|rev_|bitmap_|midx_|mtimes_)")


def examine(
    git_dir: Path, objects: ObjectStore, refs: GitRefs, ledger: LedgerLog, unfinished: WorldError | None = None
) -> Sequence[Finding]:
    found: list[Finding] = []
    for check in (_git_version, _settings, _hooks, _locks, _leftovers, _bitmap, damaged_indexes, _integrity):
        found.extend(check(git_dir))
    if unfinished is None:
        found.extend(_ledger(refs, ledger))
    else:
        found.append(Finding("error", unfinished.what, unfinished.hint))
    return found


def leftovers(git_dir: Path, older_than_s: float = LEFT_AFTER_S) -> list[Path]:
    """Temporary files and quarantine folders of git programs that were killed, and the marks by which a push kept its
    pack until its refs were moved. A push may take longer than that: its quarantine is young as long as something is
    written into it."""
    limit = time.time() - older_than_s
    folders = [git_dir / "objects", git_dir / "objects" / "pack", *(git_dir / "objects").glob("[0-9a-f][0-9a-f]")]
    found = []
    for folder in folders:
        for path in folder.glob("tmp_*") if folder.is_dir() else ():
            if _LEFTOVERS.match(path.name) and _last_written(path) < limit:
                found.append(path)
    for path in (git_dir / "objects" / "pack").glob("*.keep"):
        with suppress(FileNotFoundError):
            if path.read_bytes().startswith(b"receive-pack ") and _last_written(path) < limit:
                found.append(path)
    return sorted(found)


def _last_written(path: Path) -> float:
    """The time of the youngest file in it; of one that goes meanwhile, for ever young."""
    try:
        inside = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
        return max(each.lstat().st_mtime for each in (path, *inside))
    except FileNotFoundError:
        return math.inf


def is_partial(git_dir: Path) -> bool:
    """Whether objects may be left at a promisor remote (``git clone --filter``): git neither repacks such packs by size
    nor needs a bitmap, which could not cover what is not here."""
    return any((git_dir / "objects" / "pack").glob("*.promisor"))


def has_bitmap(git_dir: Path) -> bool:
    pack = git_dir / "objects" / "pack"
    return any(pack.glob("multi-pack-index-*.bitmap")) or any(pack.glob("pack-*.bitmap"))


def _git_version(git_dir: Path) -> Iterator[Finding]:
    words = process.run(git_dir, "version").decode().split()
    numbers = tuple(int(part) for part in re.findall(r"\d+", words[2])[:3])
    if numbers < MIN_GIT:
        wanted = ".".join(map(str, MIN_GIT))
        yield Finding("error", f"git {words[2]} is older than {wanted}", "upgrade git: it has known security holes")
    else:
        yield Finding("ok", f"git {words[2]}")


def _settings(git_dir: Path) -> Iterator[Finding]:
    table = settings.settings_of(git_dir)
    differing = settings.differing(git_dir, table)
    if not differing:
        yield Finding("ok", f"{len(table)} settings as they should be")
    elif len(differing) > MAX_SETTINGS:  # a plain `git init`, which holds what a bundle brought
        yield Finding("warning", f"{len(differing)} of {len(table)} settings are git's own, not the workbench's", MEND)
    else:
        for name in differing:
            fix = f"git --git-dir={git_dir} config {name} {table[name]}"
            yield Finding("warning", f"setting {name} is not {table[name]}", fix, {"setting": name})
    for line in settings.missing_attributes(git_dir):
        yield Finding("warning", f"info/attributes lacks {line!r}: payload would be delta-compressed", MEND)


def _hooks(git_dir: Path) -> Iterator[Finding]:
    if settings.settings_of(git_dir) is not settings.HUB:
        return
    missing = [name for name in HOOKS if not os.access(git_dir / "hooks" / name, os.X_OK)]
    for name in missing:
        yield Finding("error", f"hook {name} is missing or cannot be executed: pushes are not checked", MEND)
    if not missing:
        yield Finding("ok", "hooks are in place")


def _locks(git_dir: Path) -> Iterator[Finding]:
    for path in locks.lock_files(git_dir):
        lock = locks.Sighting.of(path)
        if lock is not None:
            what = f"{path.relative_to(git_dir)} is {lock.age_s:.0f} s old: a git holds it, or was killed and left it"
            yield Finding("warning", what, locks.removal(path), {"path": str(path)})


def _leftovers(git_dir: Path) -> Iterator[Finding]:
    found = leftovers(git_dir)
    if found:
        yield Finding("warning", f"{len(found)} temporary files of killed git programs", "workbench gc")


def _bitmap(git_dir: Path) -> Iterator[Finding]:
    if not any((git_dir / "objects" / "pack").glob("*.pack")) or is_partial(git_dir):
        return
    if has_bitmap(git_dir):
        yield Finding("ok", "reachability bitmaps are written")
    else:
        yield Finding("warning", "no reachability bitmap: versions that share content are sent whole", "workbench gc")


def _integrity(git_dir: Path) -> Iterator[Finding]:
    done = process.attempt(git_dir, "fsck", "--connectivity-only", "--no-dangling", "--no-progress", timeout_s=3600)
    lines = [line for line in (done.stdout + done.stderr).decode(errors="replace").splitlines() if line.strip()]
    wrong = [line for line in lines if not line.startswith("notice:")]
    for line in wrong[:20]:
        yield Finding("error", f"git fsck: {line}", "restore the object from a clone or a bundle, then repeat")
    if not wrong and done.returncode == 0:
        yield Finding("ok", "every object that a ref needs is there (`workbench verify` reads every copy, too)")
    elif not wrong:
        yield Finding("error", f"git fsck ended with {done.returncode}", f"git --git-dir={git_dir} fsck")


def _ledger(refs: GitRefs, ledger: LedgerLog) -> Iterator[Finding]:
    try:
        head = ledger.head()
        if head is None:
            yield Finding("ok", "the ledger is empty")
            return
        missing = [m for m in head.moves if m.old != m.new and (refs.get(str(m.ref)) or ZERO_ID) == m.old]
        if ledger.needs_recovery() and missing:
            yield Finding("warning", f"entry {head.counter} is not projected yet", "any workbench command finishes it")
            return
        yield Finding("ok", f"the ledger stands at entry {head.counter}", data={"counter": head.counter})
    except WorkbenchError as error:
        yield Finding("error", f"the ledger cannot be read: {error.what}", error.hint)
