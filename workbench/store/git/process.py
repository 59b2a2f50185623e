"""The git program as a child: one fixed environment, bounded one-shot calls, persistent services, errors explained.

Not here: what is said to it (see ``refs``, ``objects``). No child sees the person's own git configuration, so the store
behaves the same for everyone; nothing asks for a password; replace refs are off.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from workbench.domain.errors import Corrupt, ToolMissing, WorkbenchError, WorldError
from workbench.store.git import watchdog

# On every command line of ours: durable before it is acknowledged, no hooks of whoever made the repository.
_ALWAYS = ("-c", "core.fsync=all", "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0")

_PROBE_BYTES = 64 << 10
_UNWRITTEN = re.compile(r"(?:couldn't|could not|unable to) (?:write|close|set|fsync)(?: file)? '(/[^']+)'")  # no reason

_SAID_MAX_BYTES = 64 << 10  # of a service's messages: what is older is forgotten
_END_S = 5.0

_CORRUPT = re.compile(
    r"corrupt|inflate|bad object|hash mismatch|sha1 mismatch|unable to unpack|packfile .* cannot", re.I
)


def environment(object_dirs: Sequence[Path] = ()) -> dict[str, str]:
    """All variables that a git child gets. ``object_dirs`` are further folders to read objects from."""
    variables = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        # An object that is missing is missing: its repository's settings may name a program that would fetch it.
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "",
    }
    if "TMPDIR" in os.environ:
        variables["TMPDIR"] = os.environ["TMPDIR"]
    if object_dirs:
        variables["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = os.pathsep.join(_quoted(folder) for folder in object_dirs)
    return variables


def _quoted(folder: Path) -> str:
    """A path in a list that git splits at colons: in C quotes where it holds one."""
    text = os.fspath(folder)
    if os.pathsep not in text and not text.startswith('"'):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def command(git_dir: Path, *arguments: str) -> list[str]:
    return ["git", f"--git-dir={git_dir}", *_ALWAYS, *arguments]


def run(
    git_dir: Path,
    *arguments: str,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    timeout_s: float = 600.0,
) -> bytes:
    """Run git in ``git_dir`` to its end and return what it printed; a failure becomes an error that says why."""
    done = attempt(git_dir, *arguments, stdin=stdin, env=env, timeout_s=timeout_s)
    if done.returncode:
        raise explain(f"git {arguments[0]}", done.stderr.decode(errors="replace"))
    return done.stdout


def attempt(
    git_dir: Path,
    *arguments: str,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    timeout_s: float = 600.0,
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[bytes]:
    """Like ``run``, for a caller that looks at the exit status itself."""
    try:
        return subprocess.run(
            command(git_dir, *arguments),
            input=stdin,
            capture_output=True,
            cwd=git_dir,
            env=dict(env or environment()),
            timeout=timeout_s,
            pass_fds=pass_fds,
        )
    except FileNotFoundError as error:
        raise _not_started(git_dir, error) from error
    except subprocess.TimeoutExpired as error:
        raise WorldError(f"git {arguments[0]} did not end within {timeout_s:g} s", "look for a stuck disk") from error


def explain(what: str, stderr: str) -> WorkbenchError:
    """The error that git's words stand for."""
    text = " ".join(line.strip() for line in stderr.splitlines() if line.strip()) or "no reason given"
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return WorldError(f"{what}: the disk is full", "free some space and run the command again: nothing was changed")
    if "Read-only file system" in text or "Permission denied" in text:
        return WorldError(f"{what}: {text}", "the repository cannot be written to here: check its owner and its mount")
    if "unknown option" in text or "usage: git" in text:
        return ToolMissing(f"{what}: this git is too old: {text[:120]}", "upgrade git: `workbench doctor` says how far")
    if "dubious ownership" in text:
        return WorldError(f"{what}: the repository belongs to another user", "run as its owner, or change its owner")
    if "not a git repository" in text:
        return WorldError(f"{what}: not a Git repository", "make one with `workbench init PATH`")
    if _CORRUPT.search(text):
        return Corrupt(f"{what}: {text}", "run `workbench doctor`; restore the object from a clone or a bundle")
    if (unwritten := _UNWRITTEN.search(text)) and (said := write_error(Path(unwritten[1]).parent)):
        return explain(what, said)
    return WorldError(f"{what}: {text}", "run `workbench doctor`")


def write_error(folder: Path, size: int = 4096) -> str:
    """What the system says to a write there, "" when it takes it: git and libgit2 do not always pass that on."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            for start in range(0, size, _PROBE_BYTES):
                probe.write(bytes(min(_PROBE_BYTES, size - start)))
            os.fsync(probe.fileno())
    except OSError as error:
        return error.strerror or ""
    return ""


def _not_started(git_dir: Path, error: FileNotFoundError) -> WorkbenchError:
    if not git_dir.is_dir():
        return WorldError(f"no such repository: {git_dir}", "make one with `workbench init PATH`")
    return ToolMissing(f"the git program is not installed ({error})", "install it, for example `apt-get install git`")


class ServiceEnded(Exception):
    """The child ended in the middle of a conversation; ``stderr`` is what it said. Never leaves ``workbench.store``.

    ``killed``: by a signal, so that it could not clean up."""

    def __init__(self, stderr: str, *, killed: bool) -> None:
        super().__init__(stderr)
        self.stderr = stderr
        self.killed = killed


class Service:
    """A git child that answers over pipes for as long as its owner lives; started on first use, again after a failure.

    Not for several threads at once: the owner holds a lock around a whole question and answer.
    """

    def __init__(
        self, git_dir: Path, *arguments: str, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> None:
        self._command = command(git_dir, *arguments)
        self._pass_fds = pass_fds
        self._git_dir = git_dir
        self._env = dict(env or environment())
        self._process: subprocess.Popen[bytes] | None = None
        self._said: BinaryIO | None = None
        self._finalizer: weakref.finalize[[subprocess.Popen[bytes], BinaryIO], Service] | None = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            said = _messages()
            try:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    cwd=self._git_dir,
                    env=self._env,
                    pass_fds=self._pass_fds,
                    start_new_session=True,  # Ctrl-C is ours to handle; a ref is never left locked by it
                )
            except FileNotFoundError as error:
                said.close()
                raise _not_started(self._git_dir, error) from error
            except BaseException:
                said.close()
                raise
            self._said = said
            self._finalizer = weakref.finalize(self, _end, self._process, said)
        return self._process

    def send(self, data: bytes) -> None:
        process = self._running()
        assert process.stdin is not None
        assert self._said is not None
        if os.fstat(self._said.fileno()).st_size > _SAID_MAX_BYTES:
            self._said.truncate(0)
        try:
            process.stdin.write(data)
            process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        except OSError as error:
            raise self._broken(error) from error

    def line(self) -> bytes:
        """The next line of the answer, without its newline."""
        process = self._running()
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
        except OSError as error:
            raise self._broken(error) from error
        if not line.endswith(b"\n"):
            raise self._ended()
        return line[:-1]

    def exactly(self, size: int) -> bytes:
        process = self._running()
        assert process.stdout is not None
        try:
            data = process.stdout.read(size)
        except OSError as error:
            raise self._broken(error) from error
        if len(data) != size:
            raise self._ended()
        return data

    @contextmanager
    def bounded(self, seconds: float) -> Iterator[None]:
        """A child that has not answered by then is killed, so that whoever waits gets ``ServiceEnded``, not silence."""
        with watchdog.WATCHDOG.bounded(seconds, self._running().kill):
            yield

    def gone_wrong(self) -> ServiceEnded:
        """To raise when an answer is not one to what was asked: the child is ended, nothing it says later is read."""
        return self._ended()

    def close(self) -> None:
        """End the child and wait for it; the next question starts another."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._said = self._finalizer = None

    def _broken(self, error: OSError) -> ServiceEnded:
        """The pipe failed: half a question or half an answer lies in it, so that the next one would be misread."""
        process = self._process
        self.close()
        return ServiceEnded(f"the pipe to git broke: {error.strerror}", killed=_was_killed(process))

    def _ended(self) -> ServiceEnded:
        """What the child said before it ended."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert self._said is not None
        with suppress(OSError):
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_END_S)
        said = os.pread(self._said.fileno(), 2 * _SAID_MAX_BYTES, 0).decode(errors="replace")
        self.close()
        return ServiceEnded(said, killed=_was_killed(process))


def _was_killed(process: subprocess.Popen[bytes] | None) -> bool:
    return process is not None and process.returncode is not None and process.returncode < 0


def _messages() -> BinaryIO:
    """What a service says beside its answers goes to memory: with a pipe that is read only at the end, a child that has
    much to say would wait for ever."""
    fd = os.memfd_create("git-messages")
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)  # so that it can be cut off meanwhile
    return open(fd, "r+b", buffering=0)


def _end(process: subprocess.Popen[bytes], said: BinaryIO) -> None:
    """End of input ends every service; a transaction that was open is aborted by git itself."""
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(OSError):
            pipe.close()
    said.close()
    try:
        process.wait(timeout=_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
