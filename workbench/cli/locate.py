"""Which repository a command means. Standard library only, and no process is started: ``status`` is timed.

A command may stand in a hub (a bare repository), in a clone with a remote ``hub``, or in any other clone. Artifacts,
ledger and runs are the hub's where there is one on this machine, else the clone's own.
"""

from __future__ import annotations

import os

from workbench.domain.errors import NotFound, UserError


class Location:
    """Where a command works. A plain class: importing ``dataclasses`` alone would double the time of ``status``."""

    __slots__ = ("clone", "remote", "store", "worktree")

    def __init__(self, *, store: str, clone: str = "", worktree: str = "", remote: str = "") -> None:
        self.store = store  # Git directory that holds artifacts, ledger and runs
        self.clone = clone  # Git directory of the clone the command stands in; empty: it stands in the store itself
        self.worktree = worktree  # the clone's work tree
        self.remote = remote  # what the clone calls the store


def locate(repo: str = "", start: str = "") -> Location:
    """Find the repository at ``repo``, or that of ``git --git-dir=…``, or around ``start`` (default: the current
    folder)."""
    repo = repo or ("" if start else os.environ.get("GIT_DIR", ""))
    if repo:
        if not os.path.isdir(repo):
            raise NotFound(f"no repository at {repo}", "give the folder of a hub or a clone with --repo")
        found = _git_dir(os.path.abspath(repo))
        if found is None:
            raise NotFound(f"{repo} is not a Git repository", "make one with: workbench init PATH")
    else:
        found = _search(os.path.abspath(start or _here()))
    git_dir, worktree = found
    if not worktree:
        return Location(store=git_dir)
    for remote in ("hub", "origin"):
        path = _local_path(_remote_url(git_dir, remote), worktree)
        if not path:
            continue
        if is_git_dir(path) and (remote == "hub" or os.path.isdir(os.path.join(path, "workbench"))):
            return Location(store=path, clone=git_dir, worktree=worktree, remote=remote)
        if remote == "hub":
            raise UserError(
                f"the hub of this clone is not at {path}",
                "point the remote at it: git remote set-url hub PATH.git (or give --repo)",
            )
    return Location(store=git_dir, clone=git_dir, worktree=worktree)


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise NotFound("the current folder has been removed", "go into another one, or give --repo") from None


def _local_path(url: str, worktree: str) -> str:
    """The folder on this machine that a remote's url means; empty where it means none (ssh, https, host:path)."""
    if url.startswith("file://"):
        url = "/" + url[7:].partition("/")[2]  # of any host: git does not look at it
        if "%" in url:
            from urllib.parse import unquote

            url = unquote(url)
    elif ":" in url.split("/")[0]:  # a scheme, or ssh's short form
        return ""
    return os.path.normpath(os.path.join(worktree, url)) if url else ""


def is_git_dir(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "HEAD")) and os.path.isdir(os.path.join(path, "objects"))


def _search(start: str) -> tuple[str, str]:
    folder = start
    while True:
        found = _git_dir(folder)
        if found is not None:
            return found
        parent = os.path.dirname(folder)
        if parent == folder:
            raise NotFound(
                f"no Git repository here: {start}", "go into one, give --repo, or make one: workbench init PATH"
            )
        folder = parent


def _git_dir(folder: str) -> tuple[str, str] | None:
    """The Git directory and the work tree ("" when bare) of exactly this folder."""
    dot_git = os.path.join(folder, ".git")
    if os.path.isdir(dot_git):
        return dot_git, folder
    if os.path.isfile(dot_git):
        path = _beside(folder, _content(dot_git).removeprefix("gitdir:").strip())
        return _common(path) or path, folder
    if is_git_dir(folder):
        return folder, os.path.dirname(folder) if os.path.basename(folder) == ".git" else ""
    common = _common(folder)
    if common and os.path.isfile(os.path.join(folder, "gitdir")):  # as GIT_DIR says in a linked work tree
        return common, os.path.dirname(_beside(folder, _content(os.path.join(folder, "gitdir"))))
    return None


def _common(git_dir: str) -> str:
    """Where refs and objects of a linked work tree are: in the Git directory of the main one. Empty for any other."""
    file = os.path.join(git_dir, "commondir")
    return _beside(git_dir, _content(file)) if os.path.isfile(file) else ""


def _content(file: str) -> str:
    with open(file, "rb") as opened:
        return os.fsdecode(opened.read(4096)).strip()


def _beside(folder: str, path: str) -> str:
    return os.path.normpath(os.path.join(folder, path))


def _remote_url(git_dir: str, remote: str) -> str:
    """The remote's url from the repository's own config file; includes and rewrites are not followed."""
    try:
        with open(os.path.join(git_dir, "config"), "rb") as file:
            lines = os.fsdecode(file.read(1 << 20)).split("\n")
    except OSError:
        return ""
    inside, rest = False, iter(lines)
    for line in rest:
        line = line.strip(_BLANKS)
        if line.startswith("["):
            header, _, line = line.partition("]")
            section, _, name = header[1:].partition(" ")
            inside = section.lower() == "remote" and name.strip(_BLANKS) == f'"{remote}"'
        key, equals, value = line.partition("=")
        if inside and equals and key.strip(_BLANKS).lower() == "url":
            while (len(value) - len(value.rstrip("\\"))) % 2:  # it goes on in the next line
                value = value[:-1] + next(rest, "").rstrip("\r")
            return _plain(value)
    return ""


_BLANKS = " \t\r"
_ESCAPED = {"n": "\n", "t": "\t", "b": "\b"}


def _plain(value: str) -> str:
    """What git reads there: without quotes, escapes, comments, and blanks around it."""
    text, end, quoted = "", 0, False
    chars = iter(value.lstrip(_BLANKS))
    for char in chars:
        if char == '"':
            quoted = not quoted
            continue
        if char in ";#" and not quoted:
            break
        if char == "\\":
            char = next(chars, "")
            text += _ESCAPED.get(char, char)
        else:
            text += char
        if quoted or char not in _BLANKS:
            end = len(text)
    return text[:end]
