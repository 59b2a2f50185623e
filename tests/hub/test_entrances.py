"""Who pushes is what the transport proved: the hub's own user, or whom an entrance named. No variable counts."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.hub.conftest import ENV, WORKBENCH, end_all
from workbench.cli import hook_client
from workbench.cli.entrance import asked
from workbench.domain.errors import Refused
from workbench.hub.install import install_hooks
from workbench.hub.policy_server import MAX_ENTRANCES_OF_ONE

TUNER_ONLY = "tuner may not change README"


@pytest.fixture
def started(hub: Any) -> Any:
    hub.edit({"README": "one\n", "state/a.json": "{}\n"})
    assert hub.push("main").accepted
    hub.edit({"README": "two\n"})
    return hub


def last_entry(hub: Any) -> Any:
    from workbench.app.wiring import open_repository

    with open_repository(hub.path) as repository:
        return next(entry for entry in repository.ledger.history(9) if entry.action == "push")


def test_a_push_of_the_hubs_own_user_is_the_owners_whatever_variables_say(started: Any) -> None:
    names = ("WORKBENCH_PUSHER", "REMOTE_USER", "GL_USERNAME", "USER", "LOGNAME")
    environment = {**ENV, **dict.fromkeys(names, "tuner")}
    push = ["git", "-C", str(started.clone), "push", "hub", "main"]
    subprocess.run(push, env=environment, check=True, capture_output=True)
    entry = last_entry(started)
    assert entry.evidence["pusher"] == "owner"
    assert entry.who.split(" <")[0] == pwd.getpwuid(os.geteuid()).pw_name


def test_a_push_by_an_entrance_is_by_the_name_that_it_was_given(started: Any) -> None:
    assert TUNER_ONLY in started.push("main", pusher="tuner").text
    assert started.push("main", pusher="alice").accepted
    assert last_entry(started).evidence["pusher"] == "alice"
    assert last_entry(started).who == "alice <alice@localhost>"


@pytest.mark.parametrize("name", ["owner", "", "a b", "-x", "a\nb", "x" * 65, "$(id)"])
def test_a_name_that_is_none_or_the_owners_is_refused(started: Any, name: str) -> None:
    command = [*shlex.split(WORKBENCH), "receive-pack", f"--as={name}", str(started.path)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, stdin=subprocess.DEVNULL)
    assert done.returncode == 3
    assert "name" in done.stderr


def test_a_token_that_nobody_registered_is_refused(started: Any) -> None:
    """As when the policy process was replaced while the push was under way: it never becomes the owner's."""
    environment = {**ENV, hook_client.ENTRANCE.decode(): "0" * 32}
    done = subprocess.run(
        ["git", "-C", str(started.clone), "push", "hub", "main"], env=environment, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "the hub's policy process was replaced while you pushed: push again" in done.stderr


def test_what_an_entrance_said_ends_with_its_receive_pack(started: Any) -> None:
    keep = started.path / "hooks" / "pre-receive"
    keep.write_text(
        keep.read_text().replace(
            "import sys; ", "import os, sys; open('token', 'w').write(os.environ['WORKBENCH_ENTRANCE']); "
        )
    )
    assert started.push("main", pusher="alice").accepted
    token = (started.path / "token").read_text()
    keep.write_text(keep.read_text().replace("open('token', 'w').write(os.environ['WORKBENCH_ENTRANCE']); ", ""))
    started.edit({"README": "three\n"})

    def refused() -> bool:
        environment = {**ENV, hook_client.ENTRANCE.decode(): token}
        push = ["git", "-C", str(started.clone), "push", "-o", "run.dry", "hub", "main"]
        return "was replaced" in subprocess.run(push, env=environment, capture_output=True, text=True).stderr

    started.until(refused)


def test_who_leaves_many_pushes_standing_keeps_nobody_else_out(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(started.path)
    standing: list[Any] = []
    for number in range(MAX_ENTRANCES_OF_ONE):  # as entrances do whose client says nothing any more
        request = hook_client.request("entrance", f"{number:032x}".encode(), options=b"tuner")
        standing.append(hook_client.reached(request, time.monotonic() + 10))
        assert standing[-1].recv(2) == b"\0000"
    command = [*shlex.split(WORKBENCH), "receive-pack", "--as=tuner", str(started.path)]
    refused = subprocess.run(command, capture_output=True, text=True, env=ENV, stdin=subprocess.DEVNULL)
    assert f"{MAX_ENTRANCES_OF_ONE} pushes by tuner are under way" in refused.stderr
    assert started.push("main", pusher="alice").accepted
    for each in standing:
        each.close()


def ssh(folder: Path, forced: str) -> str:
    """A stand-in for ssh and sshd with a forced command in ``authorized_keys``."""
    path = folder / "ssh"
    path.write_text(
        '#!/bin/sh\nfor word in "$@"; do last="$word"; done\nexport SSH_ORIGINAL_COMMAND="$last"\n'
        f"cd {shlex.quote(str(folder))}\nexec {forced}\n"
    )
    path.chmod(0o755)
    return str(path)


def over_ssh(hub: Any, forced: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**ENV, "GIT_SSH": ssh(hub.path.parent, forced), "GIT_SSH_VARIANT": "ssh"}
    return subprocess.run(["git", "-C", str(hub.clone), *arguments], env=environment, capture_output=True, text=True)


def test_a_forced_command_of_ssh_pushes_and_fetches_by_its_name_and_reaches_its_hub_alone(started: Any) -> None:
    forced = f"{WORKBENCH} receive-pack --as tuner --only {shlex.quote(str(started.path))}"
    url = f"ssh://host{started.path}"
    assert TUNER_ONLY in over_ssh(started, forced, "push", url, "main").stderr
    fetched = over_ssh(started, forced, "fetch", url, "main")
    assert fetched.returncode == 0, fetched.stderr
    started.git("reset", "-q", "--hard", "FETCH_HEAD")
    started.edit({"state/a.json": '{"x": 1}\n'})
    pushed = over_ssh(started, forced, "push", url, "main")
    assert pushed.returncode == 0, pushed.stderr
    assert last_entry(started).evidence["pusher"] == "tuner"
    other = started.path.parent / "other.git"
    end_all(started.path.parent)  # a folder is copied while nobody writes to it
    shutil.copytree(started.path, other, ignore=shutil.ignore_patterns("workbench"))
    refused = over_ssh(started, forced, "fetch", f"ssh://host{other}", "main")
    assert "there is no hub" in refused.stderr
    assert over_ssh(started, forced, "fetch", f"ssh://host{started.path}/../other.git", "main").returncode != 0


@pytest.mark.parametrize(
    ("command", "means"),
    [
        ("git-receive-pack '/srv/a.git'", ("receive-pack", "/srv/a.git")),
        ("git receive-pack '/srv/a.git'", ("receive-pack", "/srv/a.git")),
        ("git-upload-pack 'it'\\''s.git'", ("upload-pack", "it's.git")),
        ("git-upload-archive '/srv/a.git'", None),
        ("git-receive-pack '/srv/a.git' '/srv/b.git'", None),
        ("git-receive-pack '--upload-pack=x'", None),
        ("git-receive-pack '/srv/a.git'; id", None),
        ("git-receive-pack '/srv", None),
        ("sh -c id", None),
        ("git config", None),
        ("", None),
        ("git-receive-pack '" + "x" * 5000 + "'", None),
    ],
)
def test_an_entrance_takes_what_git_sends_and_nothing_else(command: str, means: tuple[str, str] | None) -> None:
    if means is None:
        with pytest.raises(Refused, match="git fetch and git push alone"):
            asked(command)
    else:
        assert asked(command) == means


SERVER = """
import os, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self): self.answer(b"")
    def do_POST(self): self.answer(self.rfile.read(int(self.headers["Content-Length"])))
    def answer(self, body):
        path, _, query = self.path.partition("?")
        user = os.environ.get("AS", "")
        env = {**os.environ, "GIT_PROJECT_ROOT": sys.argv[1], "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
               "PATH_TRANSLATED": "/var/www/html" + path, "HTTP_PROXY": self.headers.get("Proxy", ""),
               "QUERY_STRING": query, "REQUEST_METHOD": self.command, "REMOTE_USER": user,
               "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body))}
        done = subprocess.run(sys.argv[2:], input=body, env=env, stdout=subprocess.PIPE)
        head, _, rest = done.stdout.partition(b"\\r\\n\\r\\n")
        lines = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(lines.pop("Status", "200 ok").split()[0]) if head else 500)
        for name, value in lines.items(): self.send_header(name, value)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest)
server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def over_http(
    hub: Any, user: str, *settings: str, root: Path | None = None, name: str = "hub.git"
) -> subprocess.CompletedProcess[str]:
    """A push of main through a server that sets what Apache does."""
    command = [sys.executable, "-c", SERVER, str(root or hub.path.parent), *shlex.split(WORKBENCH), "http-backend"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**ENV, "AS": user}) as server:
        try:
            assert server.stdout
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/{name}"
            push = ["git", "-C", str(hub.clone), *settings, "push", url, "main"]
            environment = {**ENV, "GIT_TERMINAL_PROMPT": "0"}
            return subprocess.run(push, env=environment, capture_output=True, text=True)
        finally:
            server.kill()


@pytest.mark.parametrize(("user", "says"), [("tuner", TUNER_ONLY), ("alice", ""), ("", "403"), ("owner", "500")])
def test_over_http_a_push_is_by_the_user_that_the_server_knows(started: Any, user: str, says: str) -> None:
    done = over_http(started, user)
    assert (done.returncode == 0) is (not says), done.stderr
    assert says in done.stderr
    if not says:
        assert last_entry(started).evidence["pusher"] == user


def test_over_http_a_path_of_any_letters_makes_nobody_the_owner(started: Any) -> None:
    root = started.path.parent / "two\nlines"
    root.symlink_to(started.path.parent)
    assert TUNER_ONLY in over_http(started, "tuner", root=root).stderr


def test_over_http_a_push_comes_to_the_hub_and_never_to_a_clone_beside_it(started: Any) -> None:
    """As `workbench init` lays them: `agent` and `agent.git`. git alone would take the push to `agent/.git`."""
    clone = started.path.parent / "hub"
    subprocess.run(["git", "clone", "-q", str(started.path), str(clone)], check=True)
    before = subprocess.check_output(["git", "-C", str(clone), "for-each-ref"])
    assert TUNER_ONLY in over_http(started, "tuner", name="hub").stderr
    pushed = over_http(started, "alice", name="hub")
    assert pushed.returncode == 0, pushed.stderr
    assert last_entry(started).evidence["pusher"] == "alice"
    assert subprocess.check_output(["git", "-C", str(clone), "for-each-ref"]) == before


def test_over_http_no_header_of_the_clients_becomes_a_proxy_of_the_hub(started: Any) -> None:
    started.kill("policy")
    pushed = over_http(started, "alice", "-c", "http.extraHeader=Proxy: http://evil.example:1")
    assert pushed.returncode == 0, pushed.stderr
    policy = int((started.path / "workbench/policy.lock").read_text())
    variables = Path(f"/proc/{policy}/environ").read_bytes().split(b"\0")
    assert not [variable for variable in variables if variable.startswith(b"HTTP_PROXY")]


PYTHON = Path("/usr/bin/python3")  # that another user can read


@pytest.mark.skipif(os.geteuid() != 0 or not PYTHON.exists(), reason="needs root, to be two users")
def test_a_push_of_another_system_user_leaves_nothing_and_locks_nobody_out(started: Any) -> None:
    hub, client = started, started.path.parent / "client"
    client.mkdir()
    shutil.copy(hook_client.__file__, client)
    for name in ("pre-receive", "proc-receive"):
        code = f"import sys; sys.path.append({str(client)!r}); import hook_client; hook_client.main({name!r})"
        (hub.path / "hooks" / name).write_text(f"#!{PYTHON} -IS\n{code}\n")
    for path in (hub.path, *hub.path.rglob("*")):  # as a hub that a group shares
        path.chmod(path.stat().st_mode | 0o777)
    for path in (hub.clone, *hub.clone.rglob("*"), client, *client.rglob("*"), *client.parents):
        path.chmod(path.stat().st_mode | 0o055)
    end_all(hub.path.parent)  # also one that is just being started
    shutil.rmtree(hub.path / "workbench")
    before = sorted(str(path) for path in hub.path.rglob("*"))
    settings = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    environment = {**ENV, **settings, "HOME": "/nonexistent"}
    command = [
        "git",
        "-C",
        str(hub.clone),
        "push",
        f"--receive-pack=env {' '.join(f'{k}={v}' for k, v in settings.items())} git receive-pack",
        "hub",
        "main",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, user=65534, group=65534)
    assert done.returncode != 0
    assert sorted(str(path) for path in hub.path.rglob("*")) == before, "no folder, no object, no process"
    assert hook_client.FOREIGN in " ".join(done.stderr.replace("remote: ", "").split())
    (hub.path / "hooks" / "pre-receive").unlink()
    install_hooks(hub.path)
    assert hub.push("main").accepted, "its owner goes on"
