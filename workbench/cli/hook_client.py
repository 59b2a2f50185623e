"""What a hook runs: hands the push to the policy process, prints the answer. Starts that process when it is absent.

Run as ``python -IS``, so only built-in modules and ``_socket``: each import costs a pusher a millisecond. Fails closed:
without an answer for ten seconds the push is refused. The names repeat ``workbench.hub.layout``; the protocol is in
``workbench.hub.wire``.
"""

import _socket
import posix
import sys
from time import monotonic, sleep

SOCKET = b"workbench/policy.sock"
ANSWER_S = 10.0
FAIL = (
    "workbench: the policy process of this hub does not answer, so the push is refused. Run `workbench doctor` there."
)


def main(verb: str, *arguments: str) -> None:
    """Exit with the verdict: 0 accepted. The working directory is the hub, as git sets it for hooks."""
    stdin = _read_all(0) if verb == "pre-receive" else b""
    environ = posix.environ
    count = int(environ.get(b"GIT_PUSH_OPTION_COUNT", b"0"))
    options = [environ.get(b"GIT_PUSH_OPTION_%d" % i, b"") for i in range(count)]
    names = (b"WORKBENCH_PUSHER", b"REMOTE_USER", b"GL_USERNAME", b"USER", b"LOGNAME")
    pusher = next((environ[name] for name in names if environ.get(name)), b"uid-%d" % posix.getuid())
    fields = [
        b"1",
        verb.encode(),
        b"%d" % posix.getppid(),
        pusher,
        environ.get(b"GIT_QUARANTINE_PATH", b""),
        b"\n".join(option.encode() for option in arguments) if arguments else b"\n".join(options),
        stdin,
    ]
    code = _ask(b"\0".join(fields))
    posix._exit(code)


def _read_all(fd: int) -> bytes:
    parts = []
    while part := posix.read(fd, 65536):
        parts.append(part)
    return b"".join(parts)


def _ask(request: bytes) -> int:
    end = monotonic() + ANSWER_S
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
                _start()
            sleep(0.02)
            continue
        except OSError:
            break
        try:
            s.sendall(request)
            s.shutdown(_socket.SHUT_WR)
            code = _answer(s)
        except OSError:
            code = None
        if code is not None:
            return code
        sleep(0.02)  # it ended while we were asking: another one answers
    _print(FAIL.encode() + b"\n")
    return 1


def _answer(s: _socket.socket) -> int | None:
    """Print what comes until the verdict. None when the connection ended before anything was said."""
    silent = True
    while True:
        data = s.recv(65536)
        if not data:
            if silent:
                return None
            _print(FAIL.encode() + b"\n")
            return 1
        silent = False
        text, mark, verdict = data.partition(b"\0")
        _print(text.replace(b"\1", b""))  # \1 says: still working
        if mark:
            verdict = verdict or s.recv(1)
            return 0 if verdict == b"0" else 1


def _print(text: bytes) -> None:
    while text:
        text = text[posix.write(1, text) :]


def _start() -> None:
    """Start the policy process: its own session, nothing inherited, none of git's variables."""
    environ = {name: value for name, value in posix.environ.items() if not name.startswith(b"GIT_")}
    null = posix.open("/dev/null", posix.O_RDWR)
    log = posix.open("workbench/processes.log", posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o600)
    redirect = [(posix.POSIX_SPAWN_DUP2, null, 0), (posix.POSIX_SPAWN_DUP2, null, 1), (posix.POSIX_SPAWN_DUP2, log, 2)]
    command = [sys.executable, "-P", "-m", "workbench.app.hub_host", "policy", posix.getcwd()]
    posix.posix_spawn(sys.executable, command, environ, file_actions=redirect, setsid=True)
