"""The Git settings that the workbench owns, as tables; ``init`` applies them and ``doctor`` compares with them.

Figures behind them: a 1 GiB push takes 21 s instead of 116 with ``unpackLimit=1``; receiving a 450 MB bomb takes 4.6 MB
of memory instead of 444 with ``bigFileThreshold``. No reflogs: a deleted version frees its bytes, and the ledger is the
history.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from workbench.domain.errors import Refused, ToolMissing, WorldError
from workbench.store.git import process
from workbench.store.git.locks import own_folder
from workbench.system import durable

# Sizes in digits: dulwich cannot read git's "1m".
COMMON: Mapping[str, str] = {
    "core.fsync": "all",
    "core.fsyncMethod": "fsync",
    "core.bigFileThreshold": "1048576",
    "core.packedGitWindowSize": "8388608",  # a push of 512 MiB takes 38 MB of memory instead of 533, in the same time
    "core.packedGitLimit": "67108864",
    "core.filesRefLockTimeout": "2000",
    "core.packedRefsTimeout": "5000",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "fastimport.unpackLimit": "1",
    "transfer.unpackLimit": "1",
    "transfer.fsckObjects": "true",
    "transfer.bundleURI": "false",
    "fetch.fsckObjects": "true",
    "gc.auto": "0",
    "gc.pruneExpire": "2.weeks.ago",
    "maintenance.auto": "false",
    "pack.allowPackReuse": "true",
    "repack.writeBitmaps": "false",  # the multi-pack index has the bitmap, see maintenance
    "submodule.recurse": "false",
}

# A clone has a work tree and a person: their links, hooks, reflogs and protocols are their own business.
CLONE: Mapping[str, str] = COMMON

HUB: Mapping[str, str] = {
    **COMMON,
    "core.bare": "true",
    "core.hooksPath": "hooks",
    "core.symlinks": "false",
    "core.logAllRefUpdates": "false",
    "core.sharedRepository": "false",  # one user owns a hub; others push over ssh, as that user
    "receive.unpackLimit": "1",
    "receive.fsckObjects": "true",
    "receive.maxInputSize": "68719476736",
    "receive.denyDeletes": "true",
    "receive.denyNonFastForwards": "true",
    "receive.denyCurrentBranch": "refuse",
    "receive.autogc": "false",
    "receive.shallowUpdate": "false",
    "receive.advertisePushOptions": "true",
    "receive.procReceiveRefs": "refs",  # the hook moves them, so that a push is all or nothing; without it none moves
    "receive.fsck.gitattributesSymlink": "error",
    "receive.fsck.gitignoreSymlink": "error",
    "receive.fsck.mailmapSymlink": "error",
    "receive.fsck.badFilemode": "error",
    "uploadpack.allowFilter": "true",
    "transfer.advertiseSID": "true",
    "transfer.credentialsInUrl": "die",
    "protocol.allow": "never",
    "protocol.file.allow": "always",
    "protocol.ssh.allow": "always",
}

ATTRIBUTES = ("payload/** -delta",)
_SECTION = re.compile(r"\s*\[([^]]*)\](.*)")
_COMMENT = re.compile(r"[#;].*")


# What gitrepository-layout calls extensions: how a repository keeps its objects and refs, with the one way that we know
# and how to come to it. Written otherwise it would be damaged.
_KEPT: Mapping[str, tuple[str, str]] = {
    "objectformat": (
        "sha1",
        "make its like: git init --bare NEW.git && git -C {git_dir} fast-export --all | git -C NEW.git fast-import",
    ),
    "refstorage": ("files", "bring it over: git -C {git_dir} refs migrate --ref-format=files"),
}


def check_format(git_dir: Path) -> None:
    """Refused for a repository that keeps its objects or refs in a way that is not ours."""
    for name, value in _extensions(git_dir / "config"):
        wanted, mending = _KEPT.get(name, (value, ""))
        if value != wanted:
            raise Refused(
                f"{git_dir} has the {'object format' if name == 'objectformat' else 'ref storage'} {value!r}: "
                f"the workbench knows {wanted} alone",
                mending.format(git_dir=shlex.quote(os.fspath(git_dir))),
            )


def _extensions(config: Path) -> Iterator[tuple[str, str]]:
    """The settings ``extensions.*``, in lower case, without starting a git: this is asked at each opening. As git does
    it, they count in the repository's own file alone, and includes are not followed."""
    try:
        text = config.read_text("utf-8", "replace")
    except FileNotFoundError:
        return
    section = ""
    for line in text.lower().splitlines():
        if match := _SECTION.match(line):
            section, line = match.groups()
        name, is_set, value = line.partition("=")
        if section.strip() == "extensions" and is_set:
            yield name.strip(), _COMMENT.sub("", value).replace('"', "").strip()


def init_hub(path: Path, *, branch: str = "main") -> Path:
    """Make a bare repository at ``path`` with all of our settings, or bring an existing one up to date; its folder.

    Hooks are not installed here. Refused where something else lies there.
    """
    if path.exists() and any(path.iterdir()) and not (path / "HEAD").is_file():
        raise Refused(f"{path} exists and is not a bare Git repository", "give the path of a new folder")
    if not (path / "HEAD").is_file():
        _init("--bare", f"--initial-branch={branch}", os.fspath(path))
    apply(path, HUB)
    return path


def init_clone(path: Path, *, branch: str = "main") -> Path:
    """Make a repository with a work tree at ``path``, or bring an existing one up to date; its Git directory."""
    git_dir = path / ".git"
    if not git_dir.exists():
        _init(f"--initial-branch={branch}", os.fspath(path))
    apply(git_dir, CLONE)
    return git_dir


def apply(git_dir: Path, settings: Mapping[str, str]) -> list[str]:
    """Set what differs from the table, and the attributes; the names of what was changed."""
    check_format(git_dir)
    changed = differing(git_dir, settings)
    if changed:
        _append(git_dir / "config", {name: settings[name] for name in changed})
        assert not differing(git_dir, settings)
    _write_attributes(git_dir)
    own_folder(git_dir)
    return changed


def differing(git_dir: Path, settings: Mapping[str, str]) -> list[str]:
    """Names of settings that have another value, or none, in the repository's own configuration."""
    listed = process.run(git_dir, "config", "--local", "--null", "--list").decode("utf-8", "replace")
    stand: dict[str, str] = {}
    for line in listed.split("\0"):
        name, _, value = line.partition("\n")
        stand[name.lower()] = value
    return [name for name, value in settings.items() if stand.get(name.lower()) != value]


def _append(config: Path, settings: Mapping[str, str]) -> None:
    """Add settings at the end, where the last value counts, in one write under git's own lock."""
    lines = []
    for name, value in settings.items():
        section, _, key = name.rpartition(".")
        top, _, below = section.partition(".")
        lines += [f'[{top} "{below}"]' if below else f"[{top}]", f"\t{key} = {value}"]
    lock = config.with_name("config.lock")
    try:
        with open(lock, "x") as file:
            os.chmod(lock, stat.S_IMODE(config.stat().st_mode))  # a config may hold what only its owner may read
            before = config.read_text()
            file.write(before + ("" if before.endswith("\n") or not before else "\n") + "\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise WorldError(
            f"{lock} exists: someone else is changing the settings", "wait, or remove it if not"
        ) from error
    except BaseException:
        lock.unlink(missing_ok=True)
        raise
    durable.rename(lock, config)


def settings_of(git_dir: Path) -> Mapping[str, str]:
    """The table that belongs to this repository: a hub's or a clone's, wherever its Git directory was put."""
    if git_dir.name == ".git":
        return CLONE
    said = process.attempt(git_dir, "config", "--local", "--type=bool", "core.bare").stdout
    return CLONE if said.strip() == b"false" else HUB


def missing_attributes(git_dir: Path) -> list[str]:
    path = git_dir / "info" / "attributes"
    present = path.read_text().splitlines() if path.is_file() else []
    return [line for line in ATTRIBUTES if line not in present]


def _write_attributes(git_dir: Path) -> None:
    missing = missing_attributes(git_dir)
    if not missing:
        return
    path = git_dir / "info" / "attributes"
    durable.make_folder(path.parent)
    before = path.read_text() if path.is_file() else ""
    if before and not before.endswith("\n"):
        before += "\n"
    mode = stat.S_IMODE(path.stat().st_mode) if path.is_file() else None
    durable.write_file(path, (before + "\n".join(missing) + "\n").encode(), mode=mode)


def _init(*arguments: str) -> None:
    command = ["git", "init", "--quiet", "--template=", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=process.environment())
    except FileNotFoundError as error:
        raise ToolMissing(
            "the git program is not installed", "install it, for example `apt-get install git`"
        ) from error
    if done.returncode:
        problem = process.explain("git init", done.stderr)
        raise problem if isinstance(problem, WorldError) else WorldError(str(problem))
