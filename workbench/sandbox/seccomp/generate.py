"""Make the system-call filter of this machine's architecture: ``python -m workbench.sandbox.seccomp.generate``.

For development only: the bytes are shipped, so running a sandbox needs neither pyseccomp nor libseccomp. The default is
ALLOW; what is listed here fails. Not covered here: what namespaces, capabilities and rlimits already take away.
"""

from __future__ import annotations

import errno
import platform
from pathlib import Path
from typing import Any

DENY = tuple(  # one text reads better than sixty quoted words
    (  # noqa: SIM905
        "ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd process_madvise mount umount2 pivot_root "
        "chroot move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr unshare setns bpf "
        "perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register add_key request_key "
        "keyctl kexec_load kexec_file_load init_module finit_module delete_module swapon swapoff reboot "
        "syslog acct quotactl quotactl_fd settimeofday clock_settime clock_adjtime adjtimex open_by_handle_at "
        "name_to_handle_at iopl ioperm personality vhangup lookup_dcookie nfsservctl mbind set_mempolicy "
        "migrate_pages move_pages modify_ldt sethostname setdomainname fanotify_init mknod mknodat "
    ).split()
)
# CLONE_NEWUSER, NEWNS, NEWCGROUP (old and new), NEWUTS, NEWIPC, NEWPID, NEWNET: no namespace inside the namespace.
CLONE_NEW = (0x10000000, 0x00020000, 0x02000000, 0x08000000, 0x20000000, 0x40000000, 0x04000000)
FAMILIES = frozenset({1, 2, 10})  # AF_UNIX, AF_INET, AF_INET6: all within an empty network namespace
NUM_FAMILIES = 46
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # typing into a terminal on somebody's behalf (CVE-2017-5226)


def build(path: Path) -> None:
    """Write the filter's bytes; the same libseccomp gives the same bytes."""
    import pyseccomp as sc

    rules: Any = sc.SyscallFilter(defaction=sc.ALLOW)
    for name in DENY:
        rules.add_rule(sc.ERRNO(errno.EPERM), name)
    # clone3 passes its flags in memory, where a filter cannot look: ENOSYS makes libc fall back to clone.
    rules.add_rule(sc.ERRNO(errno.ENOSYS), "clone3")
    for bit in CLONE_NEW:
        rules.add_rule(sc.ERRNO(errno.EPERM), "clone", sc.Arg(0, sc.MASKED_EQ, bit, bit))
    for family in range(NUM_FAMILIES):
        if family not in FAMILIES:
            rules.add_rule(sc.ERRNO(errno.EAFNOSUPPORT), "socket", sc.Arg(0, sc.EQ, family))
    for request in (TIOCSTI, TIOCLINUX):
        rules.add_rule(sc.ERRNO(errno.EPERM), "ioctl", sc.Arg(1, sc.MASKED_EQ, 0xFFFFFFFF, request))
    with path.open("wb") as out:
        rules.export_bpf(out)


if __name__ == "__main__":
    target = Path(__file__).parent / f"{platform.machine()}.bpf"
    build(target)
    print(f"{target}: {target.stat().st_size // 8} instructions")
