"""Programs that others keep: where one is, and whether it works. Not here: running one for its work.

A program on PATH may be there and not work: rustup's stand-in without a toolchain, a file that is not executable or not
for this machine, one that hangs or prints nonsense. What counts is what it answers.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.domain.errors import ToolMissing

PATIENCE_S = 20.0  # for the answer to --version
_PACKAGES = {
    "bwrap": "bubblewrap",
    "rustc": "rustc",
    "cargo": "cargo",
    "git": "git",
}  # as Debian names them
_ABSENT = "it is not installed"
_VERSIONED = ("rustc", "cargo")  # what these answer begins with their name and a number


@dataclass(frozen=True)
class Program:
    """``path`` is empty where there is none, ``version`` the first line of its answer. ``problem`` is why it cannot be
    used, empty where it can, and ``fix`` the command that mends that."""

    name: str
    path: str = ""
    version: str = ""
    problem: str = ""
    fix: str = ""

    def usable(self) -> str:
        """Its path; ToolMissing with what is wrong and what to do."""
        if not self.problem:
            return self.path
        lack = "is not installed" if self.problem == _ABSENT else f"cannot be used: {self.problem}"
        raise ToolMissing(f"{self.name} {lack}", self.fix)


def look(name: str, env: Mapping[str, str] | None = None, *, patience_s: float = PATIENCE_S) -> Program:
    """Find a program as a process with this environment would, and ask it for its version."""
    env = os.environ if env is None else env
    places = os.pathsep.join([env.get("PATH", os.defpath), *_cargo(name, env)])
    path = shutil.which(name, path=places)
    if path is None:
        lame = shutil.which(name, mode=os.F_OK, path=places)
        if lame is not None:
            return Program(name, problem=f"{lame} is not executable", fix=f"chmod +x {lame}")
        return Program(name, problem=_ABSENT, fix=f"apt-get install {_PACKAGES.get(name, name)}")
    version, problem = _ask([path, "--version"], env, patience_s)
    if not problem and name in _VERSIONED and not re.match(rf"{name} \d", version):
        problem = f"{path} --version prints {_shown(version)!r}"
    if not problem and name == "rustc":
        problem = _without_sysroot(path, env, patience_s)
    return Program(name, path, version, problem, _fix(name, path, problem) if problem else "")


def sysroot(rustc: Program, env: Mapping[str, str] | None = None) -> Path:
    """The folder of the toolchain that a working rustc belongs to."""
    said, problem = _ask([rustc.usable(), "--print", "sysroot"], os.environ if env is None else env, PATIENCE_S)
    assert not problem, "it has answered already"
    return Path(said)


def _cargo(name: str, env: Mapping[str, str]) -> list[str]:
    """Where rustup puts its programs, also for who has not put that on PATH."""
    home = env.get("HOME", "")
    folder = env.get("CARGO_HOME") or (f"{home}/.cargo" if home else "")
    return [f"{folder}/bin"] if name in _VERSIONED and folder else []


def _without_sysroot(rustc: str, env: Mapping[str, str], patience_s: float) -> str:
    said, problem = _ask([rustc, "--print", "sysroot"], env, patience_s)
    if problem or (Path(said) / "lib" / "rustlib").is_dir():
        return problem
    return f"the toolchain that it names is not there: {_shown(said)!r}"


def _ask(command: Sequence[str], env: Mapping[str, str], patience_s: float) -> tuple[str, str]:
    """The first line that it answers, and what is wrong with it."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=dict(env),
            start_new_session=True,
        )
    except OSError as error:
        return "", f"{command[0]} cannot be started: {error.strerror}"
    try:
        out, err = process.communicate(timeout=patience_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # what it started holds the pipes as well
        process.communicate()
        return "", f"{' '.join(command)} does not answer within {patience_s:g} s"
    lines = (out or err).decode(errors="replace").strip().splitlines()
    if process.returncode:
        why = err.decode(errors="replace").strip().splitlines()
        return "", _shown(why[0].removeprefix("error: ")) if why else f"{' '.join(command)} fails"
    return (lines[0].strip()[:200], "") if lines else ("", f"{' '.join(command)} answers nothing")


def _fix(name: str, path: str, problem: str) -> str:
    if "rustup" in problem or "toolchain" in problem:
        return "rustup default stable"
    return f"look at {path}, or install it anew: apt-get install {_PACKAGES.get(name, name)}"


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:200]).strip()
