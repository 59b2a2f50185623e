"""What a hook runs: hands the push to the policy process, prints the answer. Starts that process when it is absent.

Run as ``python -IS``, so only built-in modules and ``_socket``: each import costs a pusher a millisecond. Fails closed:
without an answer for ten seconds the push is refused. The names repeat ``workbench.hub.layout`` and ``surroundings``;
the protocol is in ``workbench.hub.wire``, that of ``proc-receive`` with git in githooks(5).
"""

import _socket
import posix
import sys
from time import monotonic, sleep

SOCKET = b"workbench/policy.sock"
ENTRANCE = b"WORKBENCH_ENTRANCE"  # the token of the entrance that a pusher came by; it takes rights, and gives none
ANSWER_S = 10.0
SIGNALS = (*range(1, 9), *range(10, 19), *range(20, 32))  # those that can be ignored
KEPT = (
    b"PATH", b"HOME", b"USER", b"LOGNAME", b"LANG", b"LANGUAGE", b"TZ", b"LD_LIBRARY_PATH",
    b"XDG_CACHE_HOME", b"XDG_CONFIG_HOME", b"XDG_CONFIG_DIRS", b"XDG_DATA_HOME", b"XDG_STATE_HOME",
    b"HTTP_PROXY", b"HTTPS_PROXY", b"ALL_PROXY", b"NO_PROXY", b"http_proxy", b"https_proxy", b"all_proxy", b"no_proxy",
    b"REQUESTS_CA_BUNDLE", b"CURL_CA_BUNDLE", b"RUSTUP_HOME", b"WORKBENCH_CACHE_DIR", b"WORKBENCH_HUB_IDLE_S",
    b"WORKBENCH_LLAMA_VARIANT",
)  # fmt: skip
KEPT_PREFIXES = (b"LC_", b"PIP_", b"CARGO_", b"SSL_CERT_")
FAIL = (
    "workbench: the policy process of this hub does not answer, so the push is refused. Run `workbench doctor` there."
)
FOREIGN = (
    "workbench: this hub belongs to another user, so the push is refused. Push over ssh, as the user that owns it."
)
ABSENT = "workbench: the policy process cannot be started, so the push is refused: %s: %s. Mend that, and push again."
LOST = "workbench: the policy process does not answer any more. The push stands; see `workbench runs list` there."
REFUSED = "refused by the hub, see above"


def main(verb: str) -> None:
    """Exit with the verdict: 0 accepted. The working directory is the hub, as git sets it for hooks."""
    if not is_ours():
        _write(2, FOREIGN.encode() + b"\n")
        posix._exit(1)
    environ = posix.environ
    if verb == "proc-receive":
        stdin, options = _read_commands()
    else:
        count = int(environ.get(b"GIT_PUSH_OPTION_COUNT", b"0"))
        options = b"\n".join(environ.get(b"GIT_PUSH_OPTION_%d" % i, b"") for i in range(count))
        stdin = _read_all(0)
    code = _ask(request(verb, environ.get(ENTRANCE, b""), environ.get(b"GIT_QUARANTINE_PATH", b""), options, stdin))
    if verb == "proc-receive":
        _report(stdin, code)
        code = 0
    posix._exit(code)


def is_ours() -> bool:
    """Whether we are the hub's owner. What another user makes in a hub is not the owner's, and locks the owner out."""
    return posix.stat(".").st_uid == posix.geteuid()


def request(verb: str, entrance: bytes, quarantine: bytes = b"", options: bytes = b"", stdin: bytes = b"") -> bytes:
    return b"\0".join([b"2", verb.encode(), b"%d" % posix.getppid(), entrance, quarantine, options, stdin])


def _read_all(fd: int) -> bytes:
    parts = []
    while part := posix.read(fd, 65536):
        parts.append(part)
    return b"".join(parts)


# --- the conversation of proc-receive with git ------------------------------------------------------------------------


def _read_commands() -> tuple[bytes, bytes]:
    """Greet git; the refs that are to move (as ``pre-receive`` gets them), and the push options."""
    hello = _packets()
    wants = bool(hello) and b"push-options" in hello[0].partition(b"\0")[2].split()
    _write(1, _packet(b"version=1" + (b"\0push-options" if wants else b"")) + b"0000")
    commands = _packets()
    return b"\n".join(commands), b"\n".join(_packets()) if wants else b""


def _packets() -> list[bytes]:
    """Until a flush packet or the end of input."""
    found = []
    while (size := int(_exactly(4) or b"0", 16)) >= 4:
        found.append(_exactly(size - 4).removesuffix(b"\n"))
    return found


def _exactly(size: int) -> bytes:
    data = b""
    while len(data) < size and (part := posix.read(0, size - len(data))):
        data += part
    return data


def _packet(line: bytes) -> bytes:
    return b"%04x%s\n" % (len(line) + 5, line)


def _report(updates: bytes, code: int) -> None:
    refs = [line.split(b" ", 2)[2] for line in updates.split(b"\n") if line]
    lines = [b"ok " + ref if code == 0 else b"ng %s %s" % (ref, REFUSED.encode()) for ref in refs]
    _write(1, b"".join(_packet(line) for line in lines) + b"0000")


# --- the conversation with the policy process -------------------------------------------------------------------------


def _ask(request: bytes) -> int:
    end = monotonic() + ANSWER_S
    failure = FAIL
    while monotonic() < end:
        try:
            s = reached(request, end)
            code = _answer(s) if s else None
        except Absent as error:
            failure = str(error)
            break
        except OSError:
            code = None
        if code is not None:
            return code
        sleep(0.02)  # it ended while we were asking: another one answers
    _write(2, failure.encode() + b"\n")
    return 1


class Absent(Exception):
    """There is no policy process that we may ask, and none can be started."""


def reached(request: bytes, end: float) -> _socket.socket | None:
    """The policy process, started where there is none, and asked. None when there still is none at ``end``."""
    started = False
    while monotonic() < end:
        s = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        s.settimeout(ANSWER_S)
        try:
            s.connect(SOCKET)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            s.close()
            if not started:
                started = True
                try:
                    _start()
                except OSError as error:
                    raise Absent(ABSENT % (error.strerror, error.filename)) from None
            sleep(0.02)
            continue
        except PermissionError:
            raise Absent(FOREIGN) from None
        s.sendall(request)
        s.shutdown(_socket.SHUT_WR)
        return s
    return None


def _answer(s: _socket.socket) -> int | None:
    """Print what comes until the verdict. None when the connection ended before anything was said."""
    silent, moved = True, False
    while True:
        try:
            data = s.recv(65536)
        except OSError:
            if not moved:
                raise
            data = b""
        if not data:
            if silent and not moved:
                return None
            _write(2, (LOST if moved else FAIL).encode() + b"\n")
            return 0 if moved else 1
        text, mark, verdict = data.partition(b"\0")
        moved = moved or b"\2" in text
        text = text.replace(b"\1", b"").replace(b"\2", b"")  # \1 says: still working; \2: the refs have moved
        silent = silent and not text
        _write(2, text)
        if mark:
            verdict = verdict or s.recv(1)
            return 0 if verdict == b"0" else 1


def _write(fd: int, text: bytes) -> None:
    while text:
        text = text[posix.write(fd, text) :]


def _start() -> None:
    """Start the policy process: its own session, no open file of the pusher's, no deafness to signals, few
    variables."""
    for fd in map(int, posix.listdir("/proc/self/fd")):
        try:
            if fd > 2:  # which are other files there
                posix.set_inheritable(fd, False)
        except OSError:  # the one that listed them
            continue
    environ = {name: value for name, value in posix.environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}
    try:  # noqa: SIM105 (an import costs a pusher a millisecond)
        posix.mkdir("workbench", 0o700)
    except FileExistsError:
        pass
    null = posix.open("/dev/null", posix.O_RDWR)
    log = posix.open("workbench/processes.log", posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o600)
    redirect = [(posix.POSIX_SPAWN_DUP2, null, 0), (posix.POSIX_SPAWN_DUP2, null, 1), (posix.POSIX_SPAWN_DUP2, log, 2)]
    command = [sys.executable, "-P", "-m", "workbench.app.hub_host", "policy", posix.getcwd()]
    posix.posix_spawn(
        sys.executable, command, environ, file_actions=redirect, setsid=True, setsigmask=(), setsigdef=SIGNALS
    )
