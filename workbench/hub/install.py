"""Stamping a hub's hooks: shims of a few lines that know this Python and nothing else."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import workbench
from workbench.domain.errors import UserError
from workbench.hub.layout import HubLayout
from workbench.system import durable

HOOKS = ("pre-receive", "proc-receive")
_SHEBANG_BYTES = 120  # what every kernel takes


def install_hooks(git_dir: Path, python: str = sys.executable) -> None:
    """Write the hooks, atomically, and the folder that the hub's processes use. Doing it again does no harm."""
    if not (git_dir / "objects").is_dir():
        raise UserError(f"{git_dir} is not a bare repository", "make a hub with `workbench init PATH`")
    check_place(git_dir)
    HubLayout(git_dir).create()
    folder = git_dir / "hooks"
    folder.mkdir(exist_ok=True)
    for name in HOOKS:
        text = stamped(_template(name), python)
        durable.write_file(folder / name, text.encode(), mode=0o755)


def check_place(git_dir: Path) -> None:
    if hint := wrong_place(git_dir):
        raise UserError("the path of a hub is UTF-8, and this one is not", hint)


def wrong_place(git_dir: Path) -> str:
    """What to do where this path cannot be written down in a run's record; empty where it can."""
    try:
        os.fsencode(os.path.abspath(git_dir)).decode()  # its bytes, whatever this process's locale reads into them
    except UnicodeDecodeError:
        return "rename the folder whose name is not UTF-8, or take another one"
    return ""


def foreign_hooks(git_dir: Path, python: str = sys.executable) -> list[str]:
    """Names of hooks that are there and are not those of this installation, which may have moved since."""
    found = []
    for name in HOOKS:
        path = git_dir / "hooks" / name
        if path.is_file() and path.read_text(errors="replace") != stamped(_template(name), python):
            found.append(name)
    return found


def stamped(template: str, python: str) -> str:
    """The hook with this Python and client; through ``sh`` where the path does not fit into a first line."""
    client = str(Path(workbench.__file__).parent / "cli")
    first, _, body = template.replace('"@CLIENT@"', repr(client)).partition("\n")
    first = first.replace("@PYTHON@", python)
    if len(os.fsencode(first)) <= _SHEBANG_BYTES and not set(python) & set(" \t\r\n"):
        return f"{first}\n{body}"
    return f"#!/bin/sh\nexec {shlex.quote(python)} -IS -c {shlex.quote(body.strip())}\n"


def _template(name: str) -> str:
    return (templates() / name).read_text()


def templates() -> Path:
    """In the wheel beside the package, in a checkout at its top."""
    root = Path(workbench.__file__).parent
    shipped = root / "template" / "hooks"
    return shipped if shipped.is_dir() else root.parent / "hooks"
