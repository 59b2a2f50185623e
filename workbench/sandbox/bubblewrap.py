"""The sandbox: bubblewrap, rlimits, a system-call filter, a user id per slot, and a watcher. Nothing runs unconfined.

Started by root, it drops to the slot's user before bubblewrap starts (launched as root, bubblewrap leaves /proc/sys
writable and process limits without effect). Not covered: bugs of the kernel itself, and the time that a job takes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from workbench.domain.errors import ToolMissing, UserError, WorldError
from workbench.ports.sandbox import Job, Limits, SandboxResult
from workbench.sandbox import requirements, slots, staging, toolchain
from workbench.sandbox.disk import DiskWatch
from workbench.sandbox.outbox import DiskOutbox
from workbench.sandbox.profile import Channels, Places, Programs, command
from workbench.sandbox.supervise import Ending, Listening, supervise

MAX_COLLECTED = 256
COLLECTED_BYTES = 64 << 20  # all collected files of one job together
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, SHRINK, GROW, WRITE
_ADD_SEALS = 1033  # F_ADD_SEALS
_SIZE = re.compile(rb"-1|[0-9]{1,20}")
_PROBE = Job(argv=("/bin/true",), limits=Limits(wall_s=20.0))


class Bubblewrap:
    """Adapter of ``ports.sandbox.Sandbox``."""

    def probe(self) -> str:
        """ "" when untrusted code can be run here; looked at once per process."""
        return _probe()

    def run(self, job: Job) -> SandboxResult:
        missing = self.probe()
        if missing:
            raise ToolMissing(f"code of strangers cannot be run here: {missing}", "`workbench doctor` checks it again")
        return _run(job)

    def map(self, jobs: Sequence[Job], workers: int = 1) -> Sequence[SandboxResult]:
        if workers <= 1 or len(jobs) <= 1:
            return [self.run(job) for job in jobs]
        with ThreadPoolExecutor(max_workers=min(workers, len(jobs))) as pool:
            return list(pool.map(self.run, jobs))


@cache
def _probe() -> str:
    for found in (requirements.programs(), requirements.filter_bytes()):
        if isinstance(found, str):
            return found
    try:
        slots.sweep()
        result = _run(_PROBE)
    except (WorldError, OSError) as error:
        return requirements.explain(str(error))
    return "" if result.exit_code == 0 else requirements.explain(result.stderr.decode(errors="replace"))


@cache
def _parts() -> tuple[Programs, bytes]:
    programs, filter_bytes = requirements.programs(), requirements.filter_bytes()
    if isinstance(programs, str) or isinstance(filter_bytes, str):
        raise ToolMissing(str(programs if isinstance(programs, str) else filter_bytes))
    return programs, filter_bytes


def _run(job: Job) -> SandboxResult:
    _check(job)
    rust = _toolchain(job.toolchain)
    with slots.slot() as number:
        uid = slots.FIRST_UID + number if os.geteuid() == 0 else None
        with staging.given(job, uid) as given:
            places = Places(given.binds, given.writable, rust)
            outbox = DiskOutbox(given.out, job.limits) if given.out is not None else None
            ending = _start(job, places=places, uid=uid, mark=slots.mark(number), outbox=outbox)
            if job.attendant is not None and outbox is not None and ending.started:
                job.attendant.ended(outbox, ending.exit_code)
    if not ending.started:
        message = ending.stderr.decode(errors="replace").strip()
        raise WorldError(f"the sandbox did not start: {message[:400]}", "`workbench doctor` says what is missing")
    return SandboxResult(
        outcome=ending.outcome,
        exit_code=ending.exit_code,
        stdout=ending.stdout,
        stderr=ending.stderr,
        truncated=ending.truncated,
        wall_s=ending.wall_s,
        collected=_unpack(job.collect, ending.collected),
    )


def _start(job: Job, *, places: Places, uid: int | None, mark: str, outbox: DiskOutbox | None) -> Ending:
    programs, filter_bytes = _parts()
    with contextlib.ExitStack() as opened:

        def kept(fd: int) -> int:
            opened.callback(os.close, fd)
            return fd

        filter_fd = kept(_sealed("filter", filter_bytes))
        listening, answers = None, -1
        if job.is_answered:
            stdin, answers = map(kept, os.pipe())
            os.set_blocking(answers, False)
        else:
            stdin = kept(_sealed("stdin", job.stdin) if job.stdin else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        if job.attendant is not None and outbox is not None:
            attendant = job.attendant
            listening = Listening(lambda data: attendant.stdout(data, outbox), attendant.stderr, answers)
        status = os.pipe()
        gate = socket.socketpair()
        collect = os.pipe() if job.collect else None
        channels = Channels(
            filter=filter_fd, status=status[1], gate=gate[1].fileno(), collect=collect[1] if collect else -1
        )
        argv = command(job, programs=programs, channels=channels, places=places, slot_uid=uid, slot_mark=mark)
        return supervise(
            argv, job=job, stdin=stdin, status=status, gate=gate, collect=collect, collect_bytes=COLLECTED_BYTES,
            pass_fds=[fd for fd in (channels.filter, channels.status, channels.gate, channels.collect) if fd >= 0],
            listening=listening, disk=DiskWatch(outbox.folder, job.limits) if outbox is not None else None,
        )  # fmt: skip


def _check(job: Job) -> None:
    if not job.argv or any("\0" in part for part in job.argv):
        raise UserError("a sandbox job needs a command", "give argv as a list of words without NUL")
    if not job.argv[0] or "=" in job.argv[0]:
        raise UserError(f"not the name of a program: {job.argv[0]!r}", "give the program first, and no assignment")
    if len(job.collect) > MAX_COLLECTED:
        raise UserError(f"a sandbox job may collect {MAX_COLLECTED} files, not {len(job.collect)}", "write an archive")
    for path in job.collect:
        staging.check_inside(path)
        if path.startswith("-") or any(not (c.isalnum() or c in "._-/") for c in path):
            raise UserError(f"cannot collect {path!r}", "use letters, digits, '.', '_', '-' and '/' in its name")


def _toolchain(name: str) -> Path | None:
    if name not in ("", "rust"):
        raise UserError(f"no toolchain is called {name!r}", "known is: rust")
    return toolchain.rust() if name else None


def _sealed(name: str, data: bytes) -> int:
    """An anonymous file that nobody can change any more, open at its beginning."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(os.dup(fd), "wb") as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, _ADD_SEALS, _SEALS)
    return fd


def _unpack(wanted: Sequence[str], data: bytes) -> dict[str, bytes]:
    """The collected files out of "<size>\\n<bytes>" each. A stream that is no such thing ends the list: the job wrote
    it, so it is data of a stranger."""
    found: dict[str, bytes] = {}
    at = 0
    for path in wanted:
        line_end = data.find(b"\n", at, at + 24)
        if line_end < 0 or not _SIZE.fullmatch(data, at, line_end):
            break
        size = int(data[at:line_end])
        at = line_end + 1
        if size < 0:
            continue
        if at + size > len(data):
            break
        found[path] = data[at : at + size]
        at += size
    return found


def describe() -> str:
    """The version of bubblewrap, for ``doctor``."""
    programs, _ = _parts()
    return subprocess.run([programs.bwrap, "--version"], capture_output=True, text=True, timeout=20).stdout.strip()
