"""What others wrote reaches the terminal of who pushes, and of who lists, as text: a real push, a real pty."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.conftest import ENV

EVIL = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m\r"
TIER = f"""
format = 1
[[micro]]
name = "says"
run = ["printf", '%b', '{"".join(f"{chr(92)}0{byte:03o}" for byte in EVIL.encode())}\\nend\\n']
"""
COMMANDS = [
    "log", "log --ledger", "log --ledger --json", "log --json", "show v1.0.0", "show v1.0.0 --json", "status",
    "status --json", "runs list", "runs list --json", "doctor --quick", "verify", "incoming",
]  # fmt: skip


def _in_a_terminal(*arguments: str, cwd: Path) -> bytes:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "workbench.cli.entry", *arguments]
    with subprocess.Popen(command, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, env=ENV) as process:
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:  # the other side is closed
            pass
        process.wait()
    os.close(ours)
    return b"".join(parts)


def _obeyed(said: bytes) -> list[str]:
    text = said.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    return [sign for sign in ("\x1b", "\x07", "\x9b", "\x9d", "\u202e", "\r") if sign in text]


@pytest.mark.timeout(300)
def test_nothing_that_others_wrote_is_obeyed_by_a_terminal(hub) -> None:  # type: ignore[no-untyped-def]
    hub.edit({"agents/a.py": "x = 1\n", "ci/tiers.toml": TIER}, message=f"start {EVIL}")
    hub.git("tag", "-a", "v1.0.0", "-m", f"one {EVIL}")
    command = ["git", "-C", str(hub.clone), "push", "-o", "run.wait=120", "hub", "main", "v1.0.0"]
    pushed = subprocess.run(command, capture_output=True, env=ENV | {"GIT_COMMITTER_NAME": f"al{EVIL}ice"})
    assert pushed.returncode == 0, pushed.stderr
    assert b"end" in pushed.stderr
    assert b"owned" in pushed.stderr
    assert [sign for sign in _obeyed(pushed.stderr) if sign != "\r"] == []  # git's own progress has carriage returns
    hub.settle()

    subprocess.run(["git", "-C", str(hub.path), "update-ref", "refs/tags/a\u202eb", "main"], check=True)
    listed = _in_a_terminal("runs", "list", cwd=hub.path)
    run = listed.decode().splitlines()[1].split()[0]
    for arguments in [*(command.split() for command in COMMANDS), ["runs", "show", run]]:
        said = _in_a_terminal(*arguments, cwd=hub.path)
        assert said, arguments
        assert b"Traceback" not in said, said.decode()
        assert _obeyed(said) == [], (arguments, said)
    tail = _in_a_terminal("runs", "tail", run, cwd=hub.path)  # a table that is drawn anew, so it has sequences of ours
    assert rb"\x1b]0;owned\x07\x1b[2J\u202e" in tail
    assert not any(sign in tail for sign in (b"\x1b]0;", b"\x07", b"\x1b[2J", "\u202e".encode(), "\x9b".encode()))
