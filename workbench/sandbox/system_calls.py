"""The filter of system calls that a jail runs under: a pure function of the machine's architecture.

What is listed here fails, with the error after which programs take another way; what is not listed and was known when
this was written is allowed; a newer call is answered as by a kernel that does not have it. Not here: what namespaces,
capabilities and resource limits already take away.

Many rows are about memory: pages and slabs of the kernel that no process has mapped, which the watch (``memory.py``)
would not see.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH_…, column of ``_NUMBERS``
NEWEST = 456  # futex_requeue, Linux 6.7: from 424 on numbers are the same everywhere; what follows is not known here

# name, number on x86-64, number on aarch64; - where it does not exist
_NUMBERS = """
ptrace 101 117             process_vm_readv 310 270   process_vm_writev 311 271  kcmp 312 272
pidfd_getfd 438 438        process_madvise 440 440    mount 165 40               umount2 166 39
pivot_root 155 41          chroot 161 51              move_mount 429 429         open_tree 428 428
fsopen 430 430             fsconfig 431 431           fsmount 432 432            fspick 433 433
mount_setattr 442 442      unshare 272 97             setns 308 268              bpf 321 280
perf_event_open 298 241    userfaultfd 323 282        io_uring_setup 425 425     io_uring_enter 426 426
io_uring_register 427 427  add_key 248 217            request_key 249 218        keyctl 250 219
kexec_load 246 104         kexec_file_load 320 294    init_module 175 105        finit_module 313 273
delete_module 176 106      swapon 167 224             swapoff 168 225            reboot 169 142
syslog 103 116             acct 163 89                quotactl 179 60            quotactl_fd 443 443
settimeofday 164 170       clock_settime 227 112      clock_adjtime 305 266      adjtimex 159 171
open_by_handle_at 304 265  name_to_handle_at 303 264  iopl 172 -                 ioperm 173 -
personality 135 92         vhangup 153 58             lookup_dcookie 212 18      nfsservctl 180 42
mbind 237 235              set_mempolicy 238 237      migrate_pages 256 238      move_pages 279 239
modify_ldt 154 -           sethostname 170 161        setdomainname 171 162      fanotify_init 300 262
mknod 133 -                mknodat 259 33             memfd_create 319 279       memfd_secret 447 447
shmget 29 194              msgget 68 186              semget 64 190              mq_open 240 180
inotify_init 253 -         inotify_init1 294 26       seccomp 317 277            io_setup 206 0
splice 275 76              vmsplice 278 75            tee 276 77                 sendfile 40 71
setxattr 188 5             lsetxattr 189 6            fsetxattr 190 7            clone3 435 435
mmap 9 222                 setsockopt 54 208          clone 56 220               socket 41 198
ioctl 16 29                fcntl 72 25                prctl 157 167              set_mempolicy_home_node 450 450
landlock_create_ruleset 444 444    landlock_add_rule 445 445    landlock_restrict_self 446 446
"""

_REFUSED: Sequence[tuple[int, str]] = (
    (
        errno.EPERM,
        "ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd process_madvise mount umount2 pivot_root chroot "
        "move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr unshare setns bpf perf_event_open "
        "userfaultfd io_uring_setup io_uring_enter io_uring_register add_key request_key keyctl kexec_load "
        "kexec_file_load init_module finit_module delete_module swapon swapoff reboot syslog acct quotactl quotactl_fd "
        "settimeofday clock_settime clock_adjtime adjtimex open_by_handle_at name_to_handle_at iopl ioperm personality "
        "vhangup lookup_dcookie nfsservctl mbind set_mempolicy set_mempolicy_home_node migrate_pages move_pages "
        "modify_ldt sethostname setdomainname fanotify_init mknod mknodat",
    ),
    # Memory that no process has mapped. ENOSYS, as of a kernel built without: files without a name, System V, queues,
    # events that nobody reads, rules that nobody can count (a job's own Landlock, a job's own filters), rings of
    # requests, which are also few for the whole machine.
    (
        errno.ENOSYS,
        "memfd_create memfd_secret shmget msgget semget mq_open inotify_init inotify_init1 seccomp io_setup "
        "landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    ),
    # It passes its flags in memory, where a filter cannot look; libc falls back to clone.
    (errno.ENOSYS, "clone3"),
    # A page given to a pipe or a socket stays there when its owner has let go of it, and one byte of it keeps the whole
    # (a huge one has 2 MiB). EINVAL, as of a file that cannot be spliced.
    (errno.EINVAL, "splice vmsplice tee sendfile"),
    # An access list of 64 KiB is kept beside an inode of a tmpfs and counted nowhere. As of a file system without.
    (errno.ENOTSUP, "setxattr lsetxattr fsetxattr"),
)

# CLONE_NEWUSER, NEWNS, NEWCGROUP (old and new), NEWUTS, NEWIPC, NEWPID, NEWNET: no namespace inside the namespace.
CLONE_NEW = 0x10000000 | 0x00020000 | 0x02000000 | 0x08000000 | 0x04000000 | 0x20000000 | 0x40000000
CLONE_THREAD, CLONE_FILES = 0x10000, 0x400
MAP_TYPE, MAP_SHARED, MAP_ANONYMOUS, MAP_HUGETLB = 0x0F, 0x01, 0x20, 0x40000
FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6: all within an empty network namespace
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # typing into a terminal on somebody's behalf (CVE-2017-5226)
SOL_SOCKET, SO_SNDBUF, SO_RCVBUF = 1, 7, 8
JOINS = {0: (35, 39, 42, 46), 41: (20, 27, 42, 46)}  # level (IP, IPv6) -> options that join a group of hosts
F_SETPIPE_SZ, F_NOTIFY, F_OFD_SETLK, F_OFD_SETLKW = 1031, 1026, 37, 38
PR_SET_SECCOMP, PR_SET_VMA = 22, 0x53564D41

_LOAD, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06  # classic BPF
_NR, _ARCH, _ARGS = 0, 4, 16  # where they lie in seccomp_data; both architectures are little-endian
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def filter_of(machine: str) -> bytes | None:
    """The filter's bytes for an architecture; None where its numbers are not known here."""
    if machine not in ARCHITECTURES:
        return None
    arch, column = ARCHITECTURES[machine]
    words = _NUMBERS.split()
    numbers = {
        words[at]: int(words[at + 1 + column]) for at in range(0, len(words), 3) if words[at + 1 + column] != "-"
    }
    program = _Program(numbers)
    program.add(_LOAD, _ARCH)
    program.add(_JEQ, arch, skip_true=1)
    program.add(_RET, _KILL)
    program.add(_LOAD, _NR)
    program.add(_JGE, NEWEST + 1, skip_false=1)  # also the numbers of x32, which begin at 2^30
    program.refuse(errno.ENOSYS)
    _with_arguments(program)
    for code, names in _REFUSED:
        for name in names.split():
            if name in numbers:
                program.add(_JEQ, numbers[name], skip_false=1)
                program.refuse(code)
    program.add(_RET, _ALLOW)
    return program.bytes()


@dataclass
class _Program:
    """Instructions in order. The call's number stands in the accumulator, except within a call's own block."""

    numbers: dict[str, int]
    _code: list[tuple[int, int, int, int]] = field(default_factory=list)

    def add(self, code: int, operand: int, *, skip_true: int = 0, skip_false: int = 0) -> None:
        self._code.append((code, skip_true, skip_false, operand))

    def refuse(self, code: int) -> None:
        self.add(_RET, _ERRNO | code)

    def block(self, name: str, body: Iterator[tuple[int, int, int, int]]) -> None:
        """What decides about one call by its arguments; it ends with ALLOW where nothing in it has refused."""
        inside = [*body, (_RET, 0, 0, _ALLOW)]
        self.add(_JEQ, self.numbers[name], skip_false=len(inside))
        self._code += inside

    def bytes(self) -> bytes:
        return b"".join(struct.pack("<HBBI", *each) for each in self._code)


def _argument(number: int) -> tuple[int, int, int, int]:
    """Load the lower half of an argument, which is all that the kernel looks at in each of those below."""
    return _LOAD, 0, 0, _ARGS + 8 * number


def _refused_if(values: Sequence[int], code: int) -> Iterator[tuple[int, int, int, int]]:
    for value in values:
        yield _JEQ, 0, 1, value
        yield _RET, 0, 0, _ERRNO | code


def _with_arguments(program: _Program) -> None:
    program.block("mmap", _mmap())
    program.block("clone", _clone())
    program.block("socket", _socket())
    program.block("setsockopt", _setsockopt())
    program.block("ioctl", iter([_argument(1), *_refused_if((TIOCSTI, TIOCLINUX), errno.EPERM)]))
    # A larger pipe; news of a folder that nobody reads; locks that live as long as a file on its way through a socket.
    larger, others = _refused_if((F_SETPIPE_SZ,), errno.EPERM), (F_NOTIFY, F_OFD_SETLK, F_OFD_SETLKW)
    program.block("fcntl", iter([_argument(1), *larger, *_refused_if(others, errno.EINVAL)]))
    # Filters stacked on this one; names of mappings. As of a kernel built without.
    program.block("prctl", iter([_argument(0), *_refused_if((PR_SET_SECCOMP, PR_SET_VMA), errno.EINVAL)]))


def _mmap() -> Iterator[tuple[int, int, int, int]]:
    """Shared anonymous memory stays whole while one page of it is mapped; huge pages are in no resident size."""
    yield _argument(3)
    yield _JSET, 0, 1, MAP_HUGETLB
    yield _RET, 0, 0, _ERRNO | errno.ENOMEM
    yield _AND, 0, 0, MAP_TYPE | MAP_ANONYMOUS
    yield from _refused_if((MAP_SHARED | MAP_ANONYMOUS,), errno.EPERM)


def _clone() -> Iterator[tuple[int, int, int, int]]:
    """A thread shares its process's descriptors, so that looking at one of them is looking at all."""
    yield _argument(0)
    yield _JSET, 0, 1, CLONE_NEW
    yield _RET, 0, 0, _ERRNO | errno.EPERM
    yield _AND, 0, 0, CLONE_THREAD | CLONE_FILES
    yield from _refused_if((CLONE_THREAD,), errno.EINVAL)


def _socket() -> Iterator[tuple[int, int, int, int]]:
    yield _argument(0)
    for left, family in zip(range(len(FAMILIES) - 1, -1, -1), FAMILIES, strict=True):
        yield _JEQ, left + 1, 0, family
    yield _RET, 0, 0, _ERRNO | errno.EAFNOSUPPORT


def _setsockopt() -> Iterator[tuple[int, int, int, int]]:
    """A socket holds what its buffer's size allows: the machine's default. A larger one is a wish that the kernel
    itself cuts without a word, so it is granted and not heard. Each group of hosts that is joined is noted beside the
    socket, and there is no device that could reach one."""
    refusals = {SOL_SOCKET: ((SO_SNDBUF, SO_RCVBUF), 0)} | {
        level: (group, errno.ENODEV) for level, group in JOINS.items()
    }
    yield _argument(1)
    for level, (options, code) in refusals.items():
        inside = [_argument(2), *_refused_if(options, code), (_RET, 0, 0, _ALLOW)]
        yield _JEQ, 0, len(inside), level
        yield from inside
