"""The client that a hook runs: what it asks, what it says to git, and what it does where nobody answers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from workbench.cli import hook_client
from workbench.hub import install, wire
from workbench.hub.layout import FOLDER, SOCKET, HubLayout

CLI = Path(hook_client.__file__).parent
PYTHON_TEXT = (CLI / "hook_client.py").read_text()
A, B, ZERO = "a" * 40, "b" * 40, "0" * 40


@dataclass(frozen=True)
class Case:
    verb: str
    stdin: bytes
    answers: Sequence[bytes] = (b"\x000",)  # what the policy process sends, piece by piece
    options: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Told:
    request: bytes
    code: int
    stdout: bytes
    stderr: bytes


def packet(line: bytes) -> bytes:
    return b"%04x" % (len(line) + 4) + line


def proc(lines: Sequence[bytes], *, options: Sequence[bytes] | None = None, end: bytes = b"") -> bytes:
    """What git says to proc-receive."""
    hello = packet(b"version=1\0atomic" + (b" push-options" if options is not None else b"")) + b"0000"
    said = hello + b"".join(packet(line + end) for line in lines) + b"0000"
    return said + (b"".join(packet(option + end) for option in options) + b"0000" if options is not None else b"")


ONE = f"{A} {B} refs/heads/main".encode()
TWO = [ONE, f"{ZERO} {B} refs/heads/with space é".encode()]
MANY = b"".join(b"%s %s refs/heads/b%d\n" % (A.encode(), B.encode(), number) for number in range(999))
WAITS = [b"ci.tier=full", b"run.wait"]
CASES = {
    "accepted": Case("pre-receive", ONE + b"\n"),
    "refused": Case("pre-receive", ONE + b"\n", (b"workbench: refused: no\n", b"\x001")),
    "at-once": Case("pre-receive", ONE + b"\n", (b"workbench: refused: no\n\x001",)),
    "beats": Case("pre-receive", ONE + b"\n", (b"\1", b"\1\1one\n\1", b"two\n", b"\1\x00", b"0")),
    "split-verdict": Case("pre-receive", ONE + b"\n", (b"text\n\x00", b"1")),
    "no-newline": Case("pre-receive", ONE, (b"half a line", b" and the rest", b"\x000")),
    "long-answer": Case("pre-receive", ONE, (b"x" * 300_000 + b"\n", b"\x000")),
    "many-refs": Case("pre-receive", MANY),
    "no-refs": Case("pre-receive", b""),
    "options": Case("pre-receive", ONE, options=("ci.skip", "ci.variable=A=é ü", "x=")),
    "empty-option": Case("pre-receive", ONE, options=("",)),
    "utf8": Case("pre-receive", TWO[1] + b"\n", ("é ü 日本 🦀\n".encode(), b"\x000")),
    "cut-utf8": Case("pre-receive", ONE, ("é".encode()[:1], "é".encode()[1:] + b"\n", b"\x000")),
    "not-utf8": Case("pre-receive", f"{A} {B} refs/heads/".encode() + b"\xff\xfe\n", (b"\xff\n", b"\x001")),
    "quarantine": Case("pre-receive", ONE, environment=(("GIT_QUARANTINE_PATH", "/somewhere/objects/tmp_objdir"),)),
    "entrance": Case("pre-receive", ONE, environment=(("WORKBENCH_ENTRANCE", "0f"), ("REMOTE_USER", "other"))),
    "cut-off-after-words": Case("pre-receive", ONE, (b"a word\n",)),
    "proc-accepted": Case("proc-receive", proc([ONE])),
    "proc-refused": Case("proc-receive", proc(TWO), (b"workbench: refused: no\n", b"\x001")),
    "proc-options": Case("proc-receive", proc(TWO, options=WAITS), (b"workbench: run 1\n\x000",)),
    "proc-no-options": Case("proc-receive", proc([ONE], options=[])),
    "proc-newlines": Case("proc-receive", proc(TWO, options=[b"ci.skip"], end=b"\n")),
    "proc-utf8": Case("proc-receive", proc([TWO[1]], options=["ci.variable=A=é".encode()])),
    "proc-waits": Case("proc-receive", proc([ONE], options=WAITS), (b"\2a run\n\1", b"it goes on\n", b"\x000")),
    "proc-moved-cut-off": Case("proc-receive", proc([ONE], options=WAITS), (b"\2a run\n", b"\1it goes on\n")),
    "proc-cut-off-after-words": Case("proc-receive", proc(TWO), (b"a word\n",)),
}  # fmt: skip


def hook_text(verb: str) -> str:
    return install.stamped((install.templates() / verb).read_text(), sys.executable)


def told(folder: Path, case: Case, *, text: str = "") -> Told:
    """Run one client, or this hook, against a policy process that says what the case says."""
    hook = folder / case.verb
    hook.write_text(text or hook_text(case.verb))
    hook.chmod(0o755)
    (folder / FOLDER).mkdir(exist_ok=True)
    path = folder / FOLDER / SOCKET
    path.unlink(missing_ok=True)
    options = {f"GIT_PUSH_OPTION_{n}": text for n, text in enumerate(case.options)}
    if case.options:
        options["GIT_PUSH_OPTION_COUNT"] = str(len(case.options))
    environment = {"PATH": "/usr/bin:/bin", "LOGNAME": "dave", **options, **dict(case.environment)}
    requests: list[bytes] = []

    def answer() -> None:
        try:
            connection = listener.accept()[0]
        except TimeoutError:
            return
        with connection:
            data = b""
            while part := connection.recv(65536):
                data += part
            requests.append(data)
            for piece in case.answers:
                connection.sendall(piece)

    here = os.open(".", os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(folder)  # the name of a socket is short
        try:
            listener.bind(f"{FOLDER}/{SOCKET}")
        finally:
            os.fchdir(here)
            os.close(here)
        listener.listen(1)
        listener.settimeout(20)  # for a hook that fails before it asks
        server = threading.Thread(target=answer)
        server.start()
        done = subprocess.run([hook], cwd=folder, input=case.stdin, capture_output=True, env=environment, timeout=30)
        server.join()
    assert requests, done.stderr
    return Told(requests[0], done.returncode, done.stdout, done.stderr)


def asked(case: Case) -> bytes:
    """The request that this case is, built here."""
    environment = dict(case.environment)
    fields = [environment.get("WORKBENCH_ENTRANCE", ""), environment.get("GIT_QUARANTINE_PATH", "")]
    options, stdin = "\n".join(case.options).encode(), case.stdin
    if case.verb == "proc-receive":
        packets, rest = [[]], stdin
        while rest:
            size = int(rest[:4], 16)
            if size == 0:
                packets.append([])
            else:
                packets[-1].append(rest[4:size].removesuffix(b"\n"))
            rest = rest[max(4, size) :]
        stdin = b"\n".join(packets[1])
        options = b"\n".join(packets[2]) if b"push-options" in packets[0][0] else b""
    head = [b"2", case.verb.encode(), b"%d" % os.getpid(), *(field.encode() for field in fields)]
    return b"\0".join([*head, options, stdin])


@pytest.mark.parametrize("name", CASES)
def test_what_git_says_is_asked_byte_for_byte(tmp_path: Path, name: str) -> None:
    assert told(tmp_path, CASES[name]).request == asked(CASES[name])


@pytest.mark.parametrize(
    ("name", "code", "stdout", "stderr"),
    [
        ("accepted", 0, b"", b""),
        ("refused", 1, b"", b"workbench: refused: no\n"),
        ("beats", 0, b"", b"one\ntwo\n"),
        ("cut-off-after-words", 1, b"", b"a word\n" + hook_client.FAIL.encode() + b"\n"),
        ("proc-accepted", 0, packet(b"version=1\n") + b"0000" + packet(b"ok refs/heads/main\n") + b"0000", b""),
        (
            "proc-moved-cut-off",
            0,
            packet(b"version=1\0push-options\n") + b"0000" + packet(b"ok refs/heads/main\n") + b"0000",
            b"a run\nit goes on\n" + hook_client.LOST.encode() + b"\n",
        ),
        (
            "proc-refused",
            0,
            packet(b"version=1\n")
            + b"0000"
            + packet(b"ng refs/heads/main refused by the hub, see above\n")
            + packet("ng refs/heads/with space é refused by the hub, see above\n".encode())
            + b"0000",
            b"workbench: refused: no\n",
        ),
    ],
)
def test_a_client_says_to_git_what_the_policy_said(
    tmp_path: Path, name: str, code: int, stdout: bytes, stderr: bytes
) -> None:
    found = told(tmp_path, CASES[name])
    assert (found.code, found.stdout, found.stderr) == (code, stdout, stderr)


def test_a_request_is_read_as_it_was_meant(tmp_path: Path) -> None:
    case = CASES["proc-options"]
    request = told(tmp_path, case).request
    ours, theirs = socket.socketpair()
    theirs.sendall(request)
    theirs.close()
    read = wire.read_request(ours)
    ours.close()
    assert (read.verb, read.receiver, read.entrance) == ("proc-receive", os.getpid(), "")
    assert read.options == ("ci.tier=full", "run.wait")
    assert read.stdin.splitlines() == [line.decode() for line in TWO]


# --- the same answers by real pushes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", install.HOOKS)
def test_a_policy_process_that_was_killed_is_started_again(desk: Any, verb: str) -> None:
    """Killed before the push, or in its middle."""
    hub = desk.under_test
    hub.edit({"README": "hello\n"})
    assert hub.push("main").accepted
    hub.edit({"agents/a.py": "x = 1\n"})
    pid = hub.process("policy")
    hook = hub.path / "hooks" / verb
    hook.write_text(
        hook.read_text().replace("import sys; ", f"import os, sys, time; os.kill({pid}, 9); time.sleep(0.2); ")
    )
    pushed = hub.push("-o", "ci.tier=fast", "main")
    assert hub.process("policy") != pid
    run = desk.told(pushed)
    push = desk.waiting()[-1]
    assert (push.evidence["run"], push.evidence["options"]) == (run, {"tier": "fast"})


def test_a_push_whose_refs_have_moved_stands_when_the_policy_process_dies_while_its_author_waits(
    desk: Any,
) -> None:
    hub = desk.under_test
    tip = hub.edit({"agents/a.py": "x = 1\n"})
    push = ["git", "-C", str(hub.clone), "push", "-o", "run.wait", "hub", "main"]
    with subprocess.Popen(push, stderr=subprocess.PIPE, text=True, env=hub.env) as pusher:
        assert pusher.stderr
        said = pusher.stderr.readline()
        while "follow: " not in said:
            said += pusher.stderr.readline()
        hub.kill("policy")
        said += pusher.stderr.read()
    assert pusher.returncode == 0, said
    assert hook_client.LOST in said
    assert hub.refs()["refs/heads/main"] == tip
    assert len(desk.waiting()) == 1, "its run is still to come"


def test_a_policy_process_that_hangs_refuses_the_push_in_the_end(tmp_path: Path) -> None:
    """Ten seconds in earnest; here a client whose patience is a second."""
    client = tmp_path / "client"
    client.mkdir()
    (client / "hook_client.py").write_text(PYTHON_TEXT.replace("ANSWER_S = 10.0", "ANSWER_S = 1.0"))
    hook = tmp_path / "hook"
    hook.write_text(hook_text("pre-receive").replace(str(CLI), str(client)))
    hook.chmod(0o755)
    (tmp_path / FOLDER).mkdir()
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(tmp_path)
        listener.bind(f"{FOLDER}/{SOCKET}")
        os.chdir(here)
        listener.listen(8)
        done = subprocess.run([hook], cwd=tmp_path, input=ONE, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert hook_client.FAIL.encode() in done.stderr


def test_a_greeting_that_cannot_be_written_ends_the_hook(tmp_path: Path) -> None:
    """Git waits for the greeting and then speaks; a client that waited for that would wait for ever."""
    hook = tmp_path / "hook"
    hook.write_text(hook_text("proc-receive"))
    hook.chmod(0o755)
    (tmp_path / FOLDER).mkdir()
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as listener, open("/dev/full", "wb") as full:
        os.chdir(tmp_path)
        listener.bind(f"{FOLDER}/{SOCKET}")
        os.chdir(here)
        listener.listen(8)
        process = subprocess.Popen([hook], cwd=tmp_path, stdin=subprocess.PIPE, stdout=full, stderr=subprocess.DEVNULL)
        assert process.stdin
        process.stdin.write(packet(b"version=1\0atomic") + b"0000")
        process.stdin.flush()
        try:
            assert process.wait(30) != 0
        finally:
            process.kill()
            process.wait()
            process.stdin.close()


# --- names that are written down twice --------------------------------------------------------------------------------


def test_the_clients_and_the_layout_name_the_same_files() -> None:
    layout = HubLayout(Path("hub"))
    socket_name = str(layout.socket.relative_to("hub"))
    assert hook_client.SOCKET.decode() == socket_name
    assert f'"{layout.log.relative_to("hub")}"' in PYTHON_TEXT


def test_a_policy_process_that_works_is_not_taken_for_one_that_hangs() -> None:
    assert wire.BEAT_S * 5 < hook_client.ANSWER_S


def test_there_is_a_template_of_each_hook_and_no_other() -> None:
    folder = install.templates()
    assert {path.name for path in folder.iterdir()} == set(install.HOOKS)
    for name in install.HOOKS:
        assert f'hook_client.main("{name}")' in (folder / name).read_text()


def test_a_hook_is_stamped_for_any_path_of_python() -> None:
    template = (install.templates() / "pre-receive").read_text()
    assert install.stamped(template, "/opt/python").startswith("#!/opt/python -IS\n")
    for python in ("/opt/my python/bin/python", "/" + "very-long/" * 20 + "python", "/opt/it's/python"):
        text = install.stamped(template, python)
        if not text.startswith("#!/bin/sh\n"):
            assert len(text.partition("\n")[0]) <= 120
            continue
        words = subprocess.run(
            ["sh", "-c", text.partition("\n")[2].replace("exec ", "printf '%s\\n' ", 1)], capture_output=True, text=True
        ).stdout.splitlines()
        assert words[:3] == [python, "-IS", "-c"]
        assert 'hook_client.main("pre-receive")' in words[3]


ODD_NAMES = ["o'brien", 'quo"te', "back\\slash", "ends in \\", "new\nline", "é ☃", "$x `id` @y", "-x"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_hook_finds_an_installation_whatever_its_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    template = (install.templates() / "pre-receive").read_text()
    package, python = tmp_path / name / "workbench", tmp_path / name / "python"
    shutil.copytree(CLI, package / "cli", ignore=shutil.ignore_patterns("__pycache__"))
    python.symlink_to(sys.executable)
    monkeypatch.setattr("workbench.__file__", str(package / "__init__.py"))
    found = told(tmp_path, CASES["refused"], text=install.stamped(template, str(python)))
    assert (found.code, found.stderr) == (1, b"workbench: refused: no\n")
