"""The command line that confines a job: a pure function of the job and where its parts lie. Not here: running it.

Order matters to bubblewrap: mounts are made left to right, and the last three close what the earlier ones left open
(/proc/sys and /dev are writable otherwise).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.ports.sandbox import Job, Limits
from workbench.sandbox.interpreter import PACKAGES

INSIDE_ID = 65534  # nobody, as the job sees itself
RUST = "/opt/rust"
OUTPUT = "/out"
PROGRAMS = "/in/programs"
SIGNALS = 1024  # that wait, and timers: the kernel keeps a note of each

# Nothing begins before the launcher has been told that the jail stands and has answered. bubblewrap asks the kernel to
# be ended with its launcher only after it has started, so one that is killed in between would leave a jail that nobody
# watches; its end of the gate is closed then, and the jail ends here. The job inherits neither gate nor channel.
_GATE = 'gate=$1; shift; echo >&"$gate" && read -r -u "$gate" || exit 125; exec {gate}>&- {err}>&2 2>/dev/null; '

_RUN = '/usr/bin/env -u SHLVL -u _ -- "$@" 2>&"$err" {err}>&-'  # without the shell's own variables

# A shell is the namespace's first process: it reaps orphans, cannot be signalled from within, and when it ends the
# kernel ends all the others. (bubblewrap's own reaper is left to the machine's init, as a zombie that still counts as a
# process of the slot's user.) What it says itself (of a signal, say) is no word of the job's.
_INIT = _GATE + _RUN + "; exit $?"

# The same, and then it ends whatever the job left running and sends the files that were asked for, "<size>\n<bytes>"
# each, -1 for none. The job does not inherit the channel; what comes through it is untrusted data all the same.
_COLLECT = _GATE + (
    'fd=$1 n=$2; shift 2; wanted=("${@:1:n}"); shift "$n"; '
    + _RUN
    + " {fd}>&-; code=$?; kill -9 -1 2>/dev/null; cd /out && "
    'for f in "${wanted[@]}"; do if [ -f "$f" ] && [ ! -L "$f" ]; then stat -c %s -- "$f"; cat -- "$f"; '
    'else echo -1; fi; done >&"$fd"; exit $code'
)


@dataclass(frozen=True)
class Programs:
    """Where the programs are that build the jail."""

    bwrap: str
    setpriv: str
    prlimit: str


@dataclass(frozen=True)
class Places:
    """What is mounted besides the system: (host path, path inside). A /out on disk is among the writable ones."""

    binds: Sequence[tuple[Path, str]] = ()
    writable: Sequence[tuple[Path, str]] = ()
    toolchain: Path | None = None


@dataclass(frozen=True)
class Channels:
    """File descriptors that the jail's builder gets; the job sees none of them."""

    filter: int
    status: int
    gate: int
    collect: int = -1


def command(
    job: Job, *, programs: Programs, channels: Channels, places: Places, slot_uid: int | None, slot_mark: str
) -> list[str]:
    """The whole command. ``slot_uid`` None: run as oneself; ``slot_mark`` stands in the command line, for others to
    know it by, and does nothing."""
    limits = job.limits
    parts: list[str] = []
    if slot_uid is not None:
        parts += [programs.setpriv, f"--reuid={slot_uid}", f"--regid={slot_uid}", "--clear-groups"]
        parts += ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    parts += [programs.prlimit, *_rlimits(limits, processes=slot_uid is not None), "--"]
    parts += [programs.bwrap, *_namespaces(job.beyond.network), *_environment(job, places), "--unsetenv", slot_mark]
    parts += [*_system(), "--size", str(limits.tmp_bytes), "--tmpfs", "/tmp"]
    if not limits.disk_bytes:
        parts += ["--size", str(limits.tmp_bytes), "--tmpfs", OUTPUT]
    if places.toolchain is not None:
        parts += ["--ro-bind", str(places.toolchain), RUST]
    for option, mounts in (("--ro-bind", places.binds), ("--bind", places.writable)):
        for host, inside in mounts:
            parts += [option, str(host), inside]
    parts += ["--tmpfs", "/proc/sys", "--remount-ro", "/proc/sys", "--remount-ro", "/dev", "--remount-ro", "/"]
    parts += ["--chdir", job.working, "--json-status-fd", str(channels.status), "--seccomp", str(channels.filter)]
    if slot_uid is None:
        # Counted per user namespace since Linux 5.14, so it is set inside: outside it would count one's own processes.
        parts += [programs.prlimit, f"--nproc={limits.processes}:{limits.processes}", "--"]
    parts += ["/bin/bash", "-c", _COLLECT if job.collect else _INIT, "sandbox", str(channels.gate)]
    if job.collect:
        parts += [str(channels.collect), str(len(job.collect)), *job.collect]
    return [*parts, *job.argv]


def _rlimits(limits: Limits, *, processes: bool) -> list[str]:
    options = {
        "as": limits.memory_bytes,
        "cpu": limits.cpu_s,
        "fsize": limits.file_bytes,
        "nofile": 256,
        "core": 0,
        "memlock": 65536,
        "stack": 16 << 20,
        "msgqueue": 0,
        "sigpending": SIGNALS,
    }
    if processes:
        options["nproc"] = limits.processes
    return [f"--{name}={value}:{value}" for name, value in options.items()]


def _namespaces(network: bool) -> list[str]:
    return [
        *("--unshare-all", *(["--share-net"] if network else []), "--unshare-user", "--disable-userns"),
        *("--uid", str(INSIDE_ID), "--gid", str(INSIDE_ID), "--hostname", "sandbox"),
        *("--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"),
    ]


def _environment(job: Job, places: Places) -> list[str]:
    first = [PROGRAMS] if job.python is not None or job.tools else []
    path = ":".join([*first, *([f"{RUST}/bin"] if places.toolchain else []), "/usr/bin", "/bin"])
    fixed = {"PATH": path, "HOME": "/tmp", "LANG": "C.UTF-8", "TMPDIR": "/tmp", "TZ": "UTC"}
    if job.python is not None:
        fixed |= {"PYTHONPATH": PACKAGES, "PYTHONDONTWRITEBYTECODE": "1"}
    every = fixed | dict(job.environment)
    return ["--clearenv", *(part for name, value in every.items() for part in ("--setenv", name, value))]


# No terminals: each may hold 640 KiB that nobody sees. zero is full: it reads the same, and cannot be mapped as memory
# that stays when it is unmapped.
_DEVICES = {"null": "null", "zero": "full", "full": "full", "random": "random", "urandom": "urandom", "tty": "tty"}
_STREAMS = (("fd", "fd"), ("fd/0", "stdin"), ("fd/1", "stdout"), ("fd/2", "stderr"))


def _system() -> list[str]:
    links = [("usr/bin", "/bin"), ("usr/lib", "/lib"), ("usr/lib64", "/lib64"), ("usr/sbin", "/sbin")]
    return [
        *("--ro-bind", "/usr", "/usr"),
        *(part for target, name in links for part in ("--symlink", target, name)),
        *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
        *("--ro-bind-try", "/etc/alternatives", "/etc/alternatives"),
        *("--proc", "/proc", "--tmpfs", "/dev"),
        *(part for name, node in _DEVICES.items() for part in ("--dev-bind", f"/dev/{node}", f"/dev/{name}")),
        *(part for target, name in _STREAMS for part in ("--symlink", f"/proc/self/{target}", f"/dev/{name}")),
        *("--size", "1048576", "--tmpfs", "/dev/shm"),
    ]
