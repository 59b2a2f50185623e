"""What a process of the hub takes over from the push that happens to start it: little, for it rules the work of all
that follow. Not here: what a stage gets of that (``pipeline.process``).

Variables pass by an allow-list, so that no run sees a secret of another pusher. Limits are raised as far as the system
lets us; what was lowered for good, niceness and hard limits, stays, and the log says so. Who wants the hub's work done
in other surroundings starts ``workbench worker`` in them, which keeps all that it was given.

The names are repeated in ``cli/hook_client.py``, which imports nothing; a test holds them equal.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

KEPT = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME", "XDG_STATE_HOME",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "RUSTUP_HOME", "WORKBENCH_CACHE_DIR", "WORKBENCH_HUB_IDLE_S",
    "WORKBENCH_LLAMA_VARIANT",
)  # fmt: skip
KEPT_PREFIXES = ("LC_", "PIP_", "CARGO_", "SSL_CERT_")

IDLE_VARIABLE = "WORKBENCH_HUB_IDLE_S"  # how long the hub's processes stay without work
MAX_IDLE_S = 1e6
OPEN_FILES = 1 << 16  # as many as are asked for, where more are allowed
_LIMITS = {"cpu_s": resource.RLIMIT_CPU, "file_bytes": resource.RLIMIT_FSIZE, "memory_bytes": resource.RLIMIT_AS,
           "data_bytes": resource.RLIMIT_DATA, "processes": resource.RLIMIT_NPROC}  # fmt: skip


def kept(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are passed on."""
    return {name: value for name, value in environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}


def settle(git_dir: Path) -> None:
    """Put this process on the hub's terms: what it writes is as open as the hub, its limits are the system's. Where
    native code crashes in it, the log has Python's stack."""
    faulthandler.enable()
    mode = stat.S_IMODE(git_dir.stat().st_mode)
    os.umask(~mode & 0o077 | 0o002)
    for limit in _LIMITS.values():
        _raise(limit, resource.getrlimit(limit)[1])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    _raise(resource.RLIMIT_NOFILE, OPEN_FILES if most == resource.RLIM_INFINITY else min(most, OPEN_FILES))
    if held := _held():
        print(f"hub process {os.getpid()}: held by the push that started it: {held}", file=sys.stderr, flush=True)


def _raise(limit: int, wanted: int) -> None:
    soft, hard = resource.getrlimit(limit)
    if soft != resource.RLIM_INFINITY and (wanted == resource.RLIM_INFINITY or soft < wanted):
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, (wanted, hard))


def _held() -> str:
    """What cannot be raised, in words."""
    found = {"nice": os.nice(0), **{name: resource.getrlimit(limit)[1] for name, limit in _LIMITS.items()}}
    found.pop("processes")  # there always is such a limit
    return ", ".join(f"{name} {value}" for name, value in found.items() if value not in (0, resource.RLIM_INFINITY))


def idle_s(environ: Mapping[str, str]) -> float | None:
    """What the variable says; None, and a line in the log, where that is no number of seconds."""
    text = environ.get(IDLE_VARIABLE, "")
    if not text:
        return None
    with suppress(ValueError):
        if 0 <= float(text) <= MAX_IDLE_S:
            return float(text)
    print(f"{IDLE_VARIABLE}={text!r} is no number of seconds: passed over", file=sys.stderr, flush=True)
    return None
