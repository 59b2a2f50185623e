"""Who makes a change: as Git would name the person."""

from __future__ import annotations

import getpass
import os
import socket

from workbench.app import person_git


def who(git_dir: str = "") -> str:
    """``Name <email>`` from the environment or Git's configuration, else the login name on this host."""
    name = os.environ.get("GIT_COMMITTER_NAME") or _config("user.name", git_dir) or _login()
    email = os.environ.get("GIT_COMMITTER_EMAIL") or _config("user.email", git_dir)
    found = f"{name} <{email or f'{_login()}@{socket.gethostname()}'}>"
    return found.encode("utf-8", "replace").decode("utf-8")  # the environment may hold any bytes


def _config(key: str, git_dir: str) -> str:
    return person_git.run(*(["--git-dir", git_dir] if git_dir else []), "config", "--get", key).stdout.strip()


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, with an id that has no name
        return f"uid-{os.getuid()}"
