"""What a machine needs before code of strangers may run on it, and the sentence that says what is missing."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

from workbench.sandbox import system_calls
from workbench.sandbox.profile import Programs

_INSTALL = (
    ("apt-get", "sudo apt-get install -y bubblewrap util-linux"),
    ("dnf", "sudo dnf install -y bubblewrap util-linux"),
    ("pacman", "sudo pacman -S --noconfirm bubblewrap util-linux"),
    ("zypper", "sudo zypper install -y bubblewrap util-linux"),
    ("apk", "sudo apk add bubblewrap setpriv util-linux-misc bash coreutils"),
)
_NEEDED = ("bwrap", "setpriv", "prlimit", "bash")  # the last is the first process inside
_SYSCTLS = (
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor forbids user namespaces: give bwrap a profile with `userns,`, or "
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    (
        "kernel/unprivileged_userns_clone",
        "0",
        "user namespaces are off: sudo sysctl kernel.unprivileged_userns_clone=1",
    ),
    ("user/max_user_namespaces", "0", "user namespaces are off: sudo sysctl user.max_user_namespaces=15000"),
)


def install_command() -> str:
    """The command that installs bubblewrap here."""
    found = (command for manager, command in _INSTALL if shutil.which(manager))
    return next(found, "install bubblewrap and util-linux with this system's package manager")


def programs() -> Programs | str:
    """The programs, or what is missing and how to get it."""
    found = {name: shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin") for name in _NEEDED}
    missing = [name for name, path in found.items() if path is None]
    if sys.platform != "linux":
        return "the sandbox needs Linux: run this on a Linux machine or in a Linux virtual machine"
    if missing:
        names = " and ".join("bubblewrap" if name == "bwrap" else name for name in missing)
        return f"{names} {'is' if len(missing) == 1 else 'are'} not installed; run: {install_command()}"
    return Programs(*(str(found[name]) for name in ("bwrap", "setpriv", "prlimit")))


def filter_bytes(machine: str = "") -> bytes | str:
    """The system-call filter of an architecture, or why there is none: nothing runs without it."""
    machine = machine or platform.machine()
    found = system_calls.filter_of(machine)
    known = " or ".join(system_calls.ARCHITECTURES)
    return found or f"there is no system-call filter for {machine} yet: use a machine of {known}"


def explain(stderr: str) -> str:
    """Why bubblewrap refused, with what lets it work where the cause is known."""
    hints = []
    for name, bad, hint in _SYSCTLS:
        path = Path("/proc/sys", name)
        if path.is_file() and path.read_text().strip() == bad:
            hints.append(hint)
    first = stderr.strip().splitlines()[0][:300] if stderr.strip() else "it ended without a word"
    return f"bubblewrap cannot confine here ({first}); " + (
        "; ".join(hints) or "in a container, allow user namespaces (seccomp and AppArmor profile of the container)"
    )
