"""Make the system-call filter of this machine's architecture: ``python -m workbench.sandbox.seccomp.generate``.

For development only: the bytes are shipped, so running a sandbox needs neither pyseccomp nor libseccomp. The default is
ALLOW; what is listed here fails, with the error after which programs take another way. Not covered here: what
namespaces, capabilities and rlimits already take away.
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
# Memory that no process has mapped, where the watch does not see it. ENOSYS, as of a kernel built without.
NO_MEMORY = (
    *("memfd_create", "memfd_secret", "shmget", "msgget", "semget", "mq_open"),
    *("inotify_init", "inotify_init1"),  # events that nobody reads
)
# A page given to a pipe or a socket stays there when its owner has let go of it, and one byte of it keeps the whole
# (a huge one has 2 MiB). EINVAL, as of a file that cannot be spliced.
NO_PAGES = ("splice", "vmsplice", "tee", "sendfile")
# An access list of 64 KiB is kept beside an inode of a tmpfs and counted nowhere. ENOTSUP, as of a file system without.
NO_ATTRIBUTES = ("setxattr", "lsetxattr", "fsetxattr", 463)  # the number of setxattrat: libseccomp 2.5 has no name
MAP_TYPE, MAP_SHARED, MAP_ANONYMOUS, MAP_HUGETLB = 0x0F, 0x01, 0x20, 0x40000
SOL_SOCKET, SO_SNDBUF, SO_RCVBUF = 1, 7, 8
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
    for code, calls in ((errno.ENOSYS, NO_MEMORY), (errno.EINVAL, NO_PAGES), (errno.ENOTSUP, NO_ATTRIBUTES)):
        for call in calls:
            rules.add_rule(sc.ERRNO(code), call)
    _mappings(rules, sc)
    # A socket holds what its buffer's size allows: the machine's default. A larger one is a wish that the kernel itself
    # cuts without a word, so it is granted and not heard.
    for option in (SO_SNDBUF, SO_RCVBUF):
        arguments = (sc.Arg(1, sc.MASKED_EQ, 0xFFFFFFFF, SOL_SOCKET), sc.Arg(2, sc.MASKED_EQ, 0xFFFFFFFF, option))
        rules.add_rule(sc.ERRNO(0), "setsockopt", *arguments)
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


def _mappings(rules: Any, sc: Any) -> None:
    """Shared anonymous memory stays whole while one page of it is mapped; huge pages are in no resident size."""
    shared = (MAP_TYPE | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS)
    rules.add_rule(sc.ERRNO(errno.EPERM), "mmap", sc.Arg(3, sc.MASKED_EQ, *shared))
    rules.add_rule(sc.ERRNO(errno.ENOMEM), "mmap", sc.Arg(3, sc.MASKED_EQ, MAP_HUGETLB, MAP_HUGETLB))


if __name__ == "__main__":
    target = Path(__file__).parent / f"{platform.machine()}.bpf"
    build(target)
    print(f"{target}: {target.stat().st_size // 8} instructions")
