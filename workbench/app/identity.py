"""Who makes a change: as Git would name the person."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess


def who(git_dir: str = "") -> str:
    """``Name <email>`` from the environment or Git's configuration, else the login name on this host."""
    name = os.environ.get("GIT_COMMITTER_NAME") or _config("user.name", git_dir) or getpass.getuser()
    email = os.environ.get("GIT_COMMITTER_EMAIL") or _config("user.email", git_dir)
    return f"{name} <{email or f'{getpass.getuser()}@{socket.gethostname()}'}>"


def _config(key: str, git_dir: str) -> str:
    command = ["git", *(["--git-dir", git_dir] if git_dir else []), "config", "--get", key]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
