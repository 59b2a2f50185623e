"""``workbench status``: where things stand, in the time of a ``git status``. Standard library only, one Git process
for the store and one for the clone, side by side.
"""

from __future__ import annotations

import os
import sys

from workbench.cli.locate import Location, locate
from workbench.domain.errors import ToolMissing, UserError, WorldError
from workbench.domain.printable import printable

_USAGE = "usage: workbench status [--repo PATH] [--json]"
_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set where git runs us; they would lead our git elsewhere
_FORMAT = "%(refname) %(objectname) %(*objectname)"


def main(arguments: list[str]) -> int:
    """Print the status; 0."""
    repo: str | None = None
    as_json, rest = False, list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--json":
            as_json = True
        elif argument == "--repo" and rest:
            repo = rest.pop(0)
        elif argument.startswith("--repo="):
            repo = argument[7:]
        elif argument == "--repo":
            raise UserError("--repo needs a path", _USAGE)
        else:
            raise UserError(f"unknown argument {argument!r}", _USAGE)
    if repo == "":
        raise UserError("--repo is empty: leave it out for the default", _USAGE)
    status = read(locate(repo or ""))
    sys.stdout.write(to_json(status) if as_json else printable(to_text(status)))
    return 0


def read(location: Location) -> dict[str, object]:
    """The status as plain values."""
    refs = _spawn(["git", "--git-dir", location.store, "for-each-ref", "--format=" + _FORMAT])
    changes = changed(location.worktree, "--branch").splitlines() if location.worktree else []
    names: dict[str, str] = {}
    try:
        listed = _finish(refs, "a tag names what is not there")
    except WorldError:  # git has said which; the others are shown
        refs = _spawn(["git", "--git-dir", location.store, "for-each-ref", "--format=" + _FORMAT.rpartition(" ")[0]])
        listed = _finish(refs, f"{location.store} cannot be read")
    for line in listed.splitlines():
        name, own, peeled = (line + " ").split(" ")[:3]
        names[name] = peeled or own
    return _summary(location, names, changes)


def changed(worktree: str, *arguments: str) -> str:
    """``git status --porcelain`` of a work tree, with none of the programs that the repository's own settings name:
    a monitor of the file system, filters, and what submodules have. A filter of the person's own settings is used.
    """
    listed = _spawn(["git", "-C", worktree, "config", "--null", "--list", "--name-only", "--show-scope"])
    words = _finish(listed, "git config failed").split("\0")
    set_here = {name for scope, name in zip(words[::2], words[1::2], strict=False) if scope in ("local", "worktree")}
    filters = {name.rpartition(".")[0] for name in set_here if name.startswith("filter.")}
    ours = {"core.fsmonitor": "false"}
    for name in sorted(filters):
        ours |= {f"{name}.clean": "", f"{name}.process": "", f"{name}.required": "false"}
    count = os.environ.get("GIT_CONFIG_COUNT", "")
    start = int(count) if count.isdecimal() else 0
    variables = {"GIT_CONFIG_COUNT": str(start + len(ours))}
    for number, (name, value) in enumerate(ours.items(), start):
        variables |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    command = ["git", "-C", worktree, "--no-optional-locks", "status", "--porcelain", "--ignore-submodules=all"]
    return _finish(_spawn([*command, *arguments], variables), "git status failed")


def _summary(location: Location, names: dict[str, str], changes: list[str]) -> dict[str, object]:
    versions: list[tuple[int, ...]] = []
    artifacts: dict[str, tuple[tuple[int, ...], str]] = {}
    counts: dict[str, int] = {}
    for name, commit in names.items():
        if not name.startswith("refs/tags/"):
            continue
        family, _, version = name[10:].rpartition("/")
        number = _number(version)
        if not number or (family and (family.count("/") != 1 or family.split("/")[0] not in _ORDER)):
            continue  # `log` tells of it
        if not family:
            versions.append(number)
        else:
            counts[family] = counts.get(family, 0) + 1
            if family not in artifacts or number > artifacts[family][0]:
                artifacts[family] = (number, commit)
    active = names.get("refs/workbench/channels/active", "")
    answering = ""
    if active:
        answering = next((n[10:] for n, c in names.items() if c == active and n.startswith("refs/tags/v")), active[:12])
    runs = sorted((n[20:] for n in names if n.startswith("refs/workbench/runs/")), reverse=True)
    return {
        "store": location.store,
        "worktree": location.worktree,
        "main": names.get("refs/heads/main", ""),
        "active": answering,
        "versions": len(versions),
        "latest_version": "v" + ".".join(map(str, max(versions))) if versions else "",
        "artifacts": {
            family: {"version": "v" + ".".join(map(str, number)), "commit": commit, "versions": counts[family]}
            for family, (number, commit) in sorted(artifacts.items(), key=_pipeline_order)
        },
        "runs": len(runs),
        "running": _running(location.store),
        "branch": changes[0][3:] if changes else "",
        "changed_files": max(0, len(changes) - 1),
    }


def _number(version: str) -> tuple[int, ...]:
    """Of ``vX.Y.Z``; empty for any other text."""
    parts = version[1:].split(".")
    is_one = version[:1] == "v" and len(parts) == 3 and all(p.isascii() and p.isdigit() and len(p) < 10 for p in parts)
    return tuple(map(int, parts)) if is_one else ()


_ORDER = ("raw", "filtered", "dataset", "tokenizer", "shards", "model", "metrics", "release")


def _pipeline_order(item: tuple[str, object]) -> tuple[int, str]:
    kind = item[0].split("/")[0]
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER), item[0])


def _running(store: str) -> list[str]:
    """Runs in progress: those whose folder of live files a walker holds (see ``RunFolder``)."""
    folder = os.path.join(store, "workbench", "steps")
    try:
        found = sorted(name for name in os.listdir(folder) if len(name) == 26)
    except OSError:
        return []
    return [run for run in found if _is_held(os.path.join(folder, run, "lock"))]


def _is_held(lock: str) -> bool:
    from workbench.system import locks

    try:
        return locks.is_held(lock)
    except OSError:
        return False


def to_text(status: dict[str, object]) -> str:
    lines = [f"store     {status['store']}"]
    if status["worktree"]:
        changed = status["changed_files"]
        lines.append(f"clone     {status['worktree']}  ({status['branch']}, {changed} changed)")
    lines.append(f"main      {str(status['main'])[:12] or 'no commit yet'}")
    lines.append(f"active    {status['active'] or 'nothing is pinned: workbench pin RELEASE'}")
    artifacts = status["artifacts"]
    assert isinstance(artifacts, dict)
    if artifacts:
        lines.append("artifacts")
        width = max(len(family) for family in artifacts)
        for family, entry in artifacts.items():
            more = f"  ({entry['versions']} versions)" if entry["versions"] > 1 else ""
            lines.append(f"  {family:<{width}}  {entry['version']}  {entry['commit'][:12]}{more}")
    else:
        lines.append("artifacts none yet: workbench run")
    running = status["running"]
    assert isinstance(running, list)
    lines.append(f"runs      {status['runs']}" + (f", in progress: {' '.join(running)}" if running else ""))
    return "\n".join(lines) + "\n"


def to_json(status: dict[str, object]) -> str:
    import json

    return json.dumps(status, sort_keys=True, indent=1) + "\n"


def _spawn(command: list[str], variables: dict[str, str] | None = None) -> tuple[int, int]:
    """Start a program with its output in a pipe: ``(pid, file descriptor)``. Lighter than the subprocess module.

    What is missing is not fetched: the repository's settings say by which program."""
    reader, writer = os.pipe()
    environment = {name: value for name, value in os.environ.items() if name not in _PLACES}
    environment |= {"GIT_NO_LAZY_FETCH": "1", **(variables or {})}
    actions = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_CLOSE, reader)]
    try:
        pid = os.posix_spawnp(command[0], command, environment, file_actions=actions)
    except FileNotFoundError:
        raise ToolMissing("the git program is not installed", "install it, for example: apt-get install git") from None
    finally:
        os.close(writer)
    return pid, reader


def _finish(process: tuple[int, int], failure: str) -> str:
    pid, reader = process
    with open(reader, encoding="utf-8", errors="replace") as pipe:
        text = pipe.read()
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise WorldError(failure, "what git said stands above; `workbench doctor` looks closer")
    return text
