"""Entrances for those who are not the hub's own system user: ssh keys and users of an HTTP server. Who comes by one is
what ``authorized_keys`` or the HTTP server says.

An entrance tells the hub's policy process the name, and becomes git: the connection is open for as long as git lives.
Its token reaches the hooks as a variable; without one a push is the owner's, with one that nobody knows it is refused.
"""

from __future__ import annotations

import os
import posix
import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from workbench.cli import hook_client
from workbench.domain.errors import NotFound, Refused, UserError, WorldError
from workbench.domain.roles import check_pusher

MAX_COMMAND = 4096
_SERVICES = {"git-receive-pack": "receive-pack", "git-upload-pack": "upload-pack"}
_SERVICE_PATH = re.compile(r"(?s:(?P<hub>/.+))/(?P<service>git-receive-pack|git-upload-pack|info/refs)\Z")
_HEADER = "HTTP_PROXY"  # under CGI the client's header `Proxy`, and to programs the proxy that they are to use


def over_ssh(name: str, only: Path | None, environ: Mapping[str, str]) -> NoReturn:
    """Serve the command that an ssh client asked for: fetch and push, nothing else."""
    service, path = asked(environ.get("SSH_ORIGINAL_COMMAND", ""))
    kept = {name: value for name, value in environ.items() if not name.startswith("GIT_") or name == "GIT_PROTOCOL"}
    serve(name, Path(path), only, service, kept)


def asked(command: str) -> tuple[str, str]:
    """The service and the path of a command as git sends it: ``git-receive-pack '/path/of/hub.git'``."""
    try:
        words = shlex.split(command) if len(command) <= MAX_COMMAND else []
    except ValueError:
        words = []
    if words[:1] == ["git"] and len(words) == 3:  # as some clients write it
        words = [f"git-{words[1]}", words[2]]
    if len(words) != 2 or words[0] not in _SERVICES or words[1].startswith("-") or "\0" in command:
        raise Refused("this entrance is for git fetch and git push alone", "git clone ssh://USER@HOST/PATH/OF/HUB.git")
    return _SERVICES[words[0]], words[1]


def serve(name: str, path: Path, only: Path | None, service: str, environ: Mapping[str, str]) -> NoReturn:
    """Become ``git receive-pack`` (or ``upload-pack``, which reads) of a hub."""
    hub = find(path, only)
    os.chdir(hub)
    added = admitted(name) if service == "receive-pack" else {}
    os.execvpe("git", ["git", service, str(hub)], {**environ, **added})


def find(path: Path, only: Path | None) -> Path:
    """The hub at ``path``, or ``path.git``; Refused where it is not ``only`` or below it."""
    from workbench.cli.locate import is_git_dir

    for found in (path, Path(f"{path}.git")):
        hub = Path(os.path.realpath(found))
        if only is not None and not hub.is_relative_to(os.path.realpath(only)):
            continue
        if is_git_dir(str(hub)) and (hub / "hooks" / "pre-receive").is_file():
            return hub
    raise NotFound(f"there is no hub {path} here", "ask its owner for the path of the hub")


def admitted(name: str) -> dict[str, str]:
    """The working directory is the hub: say there who comes; the variable for git's hooks."""
    check_pusher(name)
    if not hook_client.is_ours():
        raise UserError("this hub belongs to another user", "run the entrance as the user that owns the hub")
    token = os.urandom(16).hex()
    request = hook_client.request("entrance", token.encode(), options=name.encode())
    end = time.monotonic() + hook_client.ANSWER_S
    try:
        while (connection := hook_client.reached(request, end)) is not None:
            said = b""
            while not said.endswith((b"\0000", b"\0001")) and (part := connection.recv(65536)):
                said += part
            if said.endswith(b"\0000"):
                os.set_inheritable(connection.detach(), True)  # open until git, and all that it started, have ended
                return {hook_client.ENTRANCE.decode(): token}
            if said.strip(b"\1"):
                raise Refused(
                    said.partition(b"\0")[0].decode(errors="replace").strip("\1\n"), "see processes.log there"
                )
    except (OSError, hook_client.Absent) as error:
        raise WorldError(
            f"the hub's policy process does not answer: {error}", "run `workbench doctor` there"
        ) from error
    raise WorldError("the hub's policy process does not answer", "run `workbench doctor` there")


def over_http(environ: Mapping[str, str]) -> NoReturn:
    """A CGI program in the place of ``git http-backend``, which it becomes; a push is by REMOTE_USER."""
    environ = {name: value for name, value in environ.items() if name != _HEADER}
    posix.environ.pop(_HEADER.encode(), None)  # nor do the hub's processes get it
    added = {hook_client.ENTRANCE.decode(): "none"}  # whatever git takes for a push that we do not: it is nobody's
    root = environ.get("GIT_PROJECT_ROOT")
    path = root + environ.get("PATH_INFO", "") if root else environ.get("PATH_TRANSLATED", "")  # as git chooses
    match = _SERVICE_PATH.match(path)
    if match and match["service"] == "git-receive-pack":
        if not environ.get("REMOTE_USER"):
            raise Refused("nobody is logged in, and only who is may push", "have the HTTP server ask for a user")
        hub = find(Path(match["hub"]), None)
        os.chdir(hub)
        added = admitted(environ["REMOTE_USER"])
        # That hub and no other: of `agent` and `agent.git` beside each other git would take the clone's `.git`.
        added |= {"GIT_PROJECT_ROOT": "", "PATH_TRANSLATED": f"{hub}/{match['service']}"}
    os.execvpe("git", ["git", "http-backend"], {**environ, **added})
