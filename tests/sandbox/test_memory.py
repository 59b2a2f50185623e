"""Memory that no process has mapped: each attempt to hold it is refused or ends the job; programs go on to work."""

from __future__ import annotations

import errno
import os
import select
from concurrent.futures import ThreadPoolExecutor

import pytest

from workbench.domain.errors import WorldError
from workbench.ports.sandbox import Job, Limits, Outcome

_PROLOGUE = """
import ctypes, os, socket, sys, time
MIB = 1 << 20
lib = ctypes.CDLL(None, use_errno=True)
lib.mmap.restype = ctypes.c_void_p
lib.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_long]
lib.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
lib.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def call(*args):
    got = lib.syscall(*[ctypes.c_long(a) for a in args])
    if got < 0: raise OSError(ctypes.get_errno(), "refused")
    return got
def mapped(flags, fd=-1, size=32 * MIB):
    at = lib.mmap(None, size, 3, flags, fd, 0)
    if at == 2**64 - 1: raise OSError(ctypes.get_errno(), "refused")
    return at
def keep_one_page(flags, fd=-1):
    at = mapped(flags, fd)
    lib.memset(at, 1, 32 * MIB)
    lib.munmap(at + 4096, 32 * MIB - 4096)
"""

# The first of many calls that together would hold gigabytes, and the error that it gets.
REFUSED = {
    "an anonymous file": ("os.memfd_create('x')", errno.ENOSYS),
    "a secret file": ("call(447, 0)", errno.ENOSYS),
    "a System V segment": ("call(29, 0, 64 * MIB, 0o1600)", errno.ENOSYS),
    "a System V queue": ("call(68, 0, 0o1600)", errno.ENOSYS),
    "System V semaphores": ("call(64, 0, 32000, 0o1600)", errno.ENOSYS),
    "a POSIX queue": ("lib.mq_open(b'/x', 0o102, 0o600, None) < 0 and sys.exit(ctypes.get_errno())", errno.ENOSYS),
    "events of files": ("call(294, 0)", errno.ENOSYS),
    "events of files, old call": ("call(253)", errno.ENOSYS),
    "shared anonymous memory, all but a page unmapped": ("keep_one_page(0x21)", errno.EPERM),
    "shared anonymous memory, more flags": ("keep_one_page(0x1 << 40 | 0x8021)", errno.EPERM),
    "shared zeros, all but a page unmapped": ("keep_one_page(0x1, os.open('/dev/zero', os.O_RDWR))", errno.ENODEV),
    "huge pages": ("mapped(0x40022, size=0)", errno.ENOMEM),  # which no kernel says of no page at all
    "pages given to a pipe": ("call(278, os.pipe()[1], 0, 0, 0)", errno.EINVAL),
    "pages of a file in a pipe": ("call(275, os.open('/in/a.py', 0), 0, os.pipe()[1], 0, 1, 0)", errno.EINVAL),
    "pages of a pipe in another": ("call(276, os.pipe()[0], os.pipe()[1], 1, 0)", errno.EINVAL),
    "pages of a file in a socket": (
        "os.sendfile(socket.socketpair()[0].fileno(), os.open('/in/a.py', 0), 0, 1)",
        errno.EINVAL,
    ),
    "an attribute of a file": ("open('/tmp/a', 'w'); os.setxattr('/tmp/a', 'user.x', bytes(60000))", errno.ENOTSUP),
    "an attribute of a link": (
        "open('/tmp/a', 'w'); os.setxattr('/tmp/a', 'user.x', b'x', follow_symlinks=False)",
        errno.ENOTSUP,
    ),
    "an attribute of an open file": ("os.setxattr(os.open('/tmp/a', 65), 'user.x', b'x')", errno.ENOTSUP),
    "an attribute, new call": ("call(463, -100, 0, 0, 0, 0, 0)", errno.ENOSYS),
    "a call that is newer than the filter": ("call(469, 0, 0, 0, 0, 0)", errno.ENOSYS),
    "Landlock rules": ("call(444, 0, 0, 1)", errno.ENOSYS),
    "one Landlock rule more": ("call(445, 0, 0, 0, 0)", errno.ENOSYS),
    "Landlock rules upon others": ("call(446, 0, 0)", errno.ENOSYS),
    "filters upon the filter": ("call(317, 1, 0, 0)", errno.ENOSYS),
    "filters upon the filter, old call": ("call(157, 22, 2, 0)", errno.EINVAL),
    "names of mappings": ("call(157, 0x53564D41, 0, mapped(0x22), 4096, 0)", errno.EINVAL),
    "keys": ("call(248, 0, 0, 0, 0, -3)", errno.EPERM),
    "a key ring": ("call(250, 1, 0)", errno.EPERM),
    "a larger pipe": ("import fcntl; fcntl.fcntl(os.pipe()[0], 1031, 1 << 20)", errno.EPERM),
    "a lock of an open file": ("import fcntl; fcntl.fcntl(os.open('/tmp/a', 66), 37, bytes(32))", errno.EINVAL),
    "news of a folder": ("import fcntl; fcntl.fcntl(os.open('/tmp', 0), 1026, 2)", errno.EINVAL),
    "a terminal": ("os.openpty()", errno.ENOENT),
    "more timers than a few": (
        "for _ in range(2000):\n"
        "        if lib.timer_create(1, None, ctypes.byref(ctypes.c_void_p())): sys.exit(ctypes.get_errno())",
        errno.EAGAIN,
    ),
    "a ring of requests": ("call(206, 8, lib.malloc(8))", errno.ENOSYS),
    "watched groups of files": ("call(300, 0, 0)", errno.EPERM),
    "faults that are handled elsewhere": ("call(323, 0)", errno.EPERM),
    "a program for the kernel": ("call(321, 0, 0, 0)", errno.EPERM),
    "a ring of the kernel's": ("call(425, 8, 0)", errno.EPERM),
    "a mount": ("call(165, 0, 0, 0, 0, 0)", errno.EPERM),
    "a file system to be mounted": ("call(430, 0, 0)", errno.EPERM),
    "a copy of a mount": ("call(428, -100, 0, 1)", errno.EPERM),
    "a thread with descriptors of its own": ("call(56, 0x10900, 0, 0, 0, 0)", errno.EINVAL),
    "a group of hosts": (
        "socket.socket(socket.AF_INET, 2).setsockopt(0, 35, bytes([224, 0, 0, 9, 127, 0, 0, 1]))",
        errno.ENODEV,
    ),
    "a group of hosts, IPv6": ("socket.socket(socket.AF_INET6, 2).setsockopt(41, 20, bytes(20))", errno.ENODEV),
}


@pytest.mark.parametrize("attempt", REFUSED)
def test_memory_beside_the_processes_is_refused(python, attempt: str):
    body, error = REFUSED[attempt]
    source = f"{_PROLOGUE}\ntry:\n    {body}\nexcept OSError as error: sys.exit(error.errno)\nprint('ESCAPED')\n"
    result = python(source)
    assert (result.exit_code, result.stdout) == (error, b""), result


def test_a_socket_s_buffer_stays_as_large_as_it_is(python):
    source = """
import socket
a, b = socket.socketpair()
for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
    before = a.getsockopt(socket.SOL_SOCKET, option)
    a.setsockopt(socket.SOL_SOCKET, option, before + 4096)
    print(a.getsockopt(socket.SOL_SOCKET, option) - before)
"""
    result = python(source)
    assert (result.stdout, result.stderr) == (b"0\n0\n", b""), "granted and not heard"


def test_what_the_filter_refuses_has_another_way(python, sandbox):
    source = """
import asyncio, multiprocessing, shutil, subprocess, tempfile
shutil.copyfile("/in/a.py", "/tmp/b"); shutil.copy2("/in/a.py", "/tmp/c"); shutil.copytree("/in", "/tmp/d")
def child(lock, pipe):
    with lock: pipe.send(7)
ours, theirs = multiprocessing.Pipe()
process = multiprocessing.Process(target=child, args=(multiprocessing.Lock(), theirs))
process.start(); assert ours.recv() == 7; process.join()
async def served(reader, writer):
    with open("/tmp/b", "rb") as file: await asyncio.get_running_loop().sendfile(writer.transport, file)
    writer.close()
async def main():
    server = await asyncio.start_server(served, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    return await reader.read()
assert asyncio.run(main()) == open("/in/a.py", "rb").read()
assert subprocess.run(["cat", "/tmp/c"], capture_output=True).stdout == open("/tmp/d/a.py", "rb").read()
with tempfile.TemporaryFile() as file: file.write(bytes(1 << 20))
print("fine")
"""
    result = python(source)
    assert result.stdout == b"fine\n", result
    script = "head -c 9 /dev/zero | od -An -tx1; cp -a /in/a /tmp/b; tail -c 2 /tmp/b"
    result = sandbox.run(Job(argv=["sh", "-c", script], files={"a": b"a\n"}))
    assert result.stdout.split(b"\n")[:2] == [b" 00" * 9, b"a"]
    assert (result.exit_code, result.stderr) == (0, b"")


def test_a_c_program_is_built_and_runs(sandbox):
    if sandbox.run(Job(argv=["sh", "-c", "command -v cc"])).exit_code != 0:
        pytest.skip("the jail has no C compiler")
    script = "cc -O1 -pipe -o /tmp/a /in/a.c && /tmp/a"
    result = sandbox.run(Job(argv=["sh", "-c", script], files={"a.c": b"int main(void) { return 42; }\n"}))
    assert result.exit_code == 42, result


def test_a_rust_program_is_built_and_copies(sandbox):
    from workbench.domain.errors import ToolMissing
    from workbench.sandbox import toolchain

    try:
        toolchain.rust()
    except ToolMissing as error:
        pytest.skip(error.what)
    if sandbox.run(Job(argv=["sh", "-c", "command -v cc"])).exit_code != 0:
        pytest.skip("the jail has no linker")
    source = b"""
use std::{fs, io, os::unix::net::UnixStream, thread};
fn main() -> io::Result<()> {
    fs::copy("/in/a.rs", "/tmp/b")?;
    io::copy(&mut fs::File::open("/tmp/b")?, &mut fs::File::create("/tmp/c")?)?;
    let (mut reader, mut writer) = UnixStream::pair()?;
    let sent = thread::spawn(move || io::copy(&mut fs::File::open("/tmp/c").unwrap(), &mut writer).unwrap());
    io::copy(&mut reader, &mut io::stdout())?;
    assert!(sent.join().unwrap() > 0);
    Ok(())
}
"""
    script = "rustc -C debuginfo=2 -o /tmp/a /in/a.rs && /tmp/a"
    limits = Limits(wall_s=60, cpu_s=30)
    job = Job(argv=["sh", "-c", script], files={"a.rs": source}, toolchain="rust", limits=limits)
    assert sandbox.run(job).stdout == source


# Each holds at least twice the limit of 128 MiB and waits to be ended for it.
HELD = {
    "files": """
for place in ("/tmp", "/out"):
    for number in range(3):
        with open(f"{place}/{number}", "wb") as file:
            for _ in range(60): file.write(bytes(MIB))
""",
    "files that were deleted": """
files = [open(f"/tmp/{number}", "wb") for number in range(5)]
for number, file in enumerate(files):
    os.unlink(f"/tmp/{number}")
    for _ in range(50): file.write(bytes(MIB))
""",
    "deleted files on their way from socket to socket": """
ours, theirs = socket.socketpair()
for number in range(5):
    with open(f"/tmp/{number}", "wb") as file:
        os.unlink(f"/tmp/{number}")
        for _ in range(50): file.write(bytes(MIB))
        file.flush()
        socket.send_fds(ours, [b"x"], [file.fileno()])
""",
    "files of a process that has gone": """
if os.fork() == 0:
    for number in range(5):
        with open(f"/tmp/{number}", "wb") as file:
            for _ in range(50): file.write(bytes(MIB))
    os._exit(0)
os.wait()
""",
    "empty files with long names": """
os.mkdir("/tmp/d")
for number in range(140000): os.close(os.open(f"/tmp/d/{'x' * 200}{number}", os.O_CREAT | os.O_WRONLY))
""",
    "connections that nobody accepts": """
server = socket.socket(socket.AF_UNIX); server.bind("/tmp/s"); server.listen(4096)
for _ in range(1500):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("/tmp/s"); one.setblocking(False)
        try:
            while True: one.send(bytes(65536))
        except BlockingIOError: pass
""",
    "messages of senders that have gone": """
kept = []
for number in range(160):
    kept.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)); kept[-1].bind(f"/tmp/{number}")
    for _ in range(10):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one: one.sendto(bytes(200000), f"/tmp/{number}")
""",
    "connections of TCP": """
server = socket.create_server(("127.0.0.1", 0), backlog=4096)
kept = []
for _ in range(240):
    kept.append(socket.create_connection(server.getsockname()))
    kept[-1].setblocking(False)
    try:
        while True: kept[-1].send(bytes(65536))
    except BlockingIOError: pass
""",
    "notes of mappings that forks inherit": """
lib.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
at = mapped(0x22, size=6000 * 8192)
for number in range(6000):
    lib.memset(at + number * 8192, 1, 1)
    lib.mprotect(at + number * 8192 + 4096, 4096, 0)
for _ in range(45):
    if os.fork(): break
""",
    "watches": """
import select
ends = [os.pipe()[0] for _ in range(60)]
for _ in range(8):
    if os.fork() == 0:
        kept = []
        for _ in range(40):
            kept.append(select.epoll())
            for end in ends:
                for number in range(190, 256):
                    os.dup2(end, number); kept[-1].register(number, 1)
            for number in range(190, 256): os.close(number)
        time.sleep(30); os._exit(0)
""",
    "watches on their way through a socket": """
import select
ours, theirs = socket.socketpair()
ends = [os.pipe()[0] for _ in range(60)]
for _ in range(200):
    one = select.epoll()
    for end in ends:
        for number in range(190, 256):
            os.dup2(end, number); one.register(number, 1)
    for number in range(190, 256): os.close(number)
    socket.send_fds(ours, [b"x"], [one.fileno()]); one.close()
""",
    "locks": """
import fcntl
for _ in range(50):
    if os.fork() == 0:
        kept = [open(f"/tmp/{os.getpid()}-{number}", "w") for number in range(40)]
        for file in kept:
            for at in range(0, 800, 2): fcntl.lockf(file, fcntl.LOCK_EX, 1, at)
        time.sleep(30); os._exit(0)
""",
    "pipes": """
for _ in range(24):
    if os.fork() == 0:
        for _ in range(110):
            end = os.pipe()[1]; os.set_blocking(end, False)
            try:
                while True: os.write(end, bytes(65536))
            except BlockingIOError: pass
        time.sleep(30); os._exit(0)
""",
}


@pytest.mark.parametrize("attempt", HELD)
def test_memory_that_a_jail_keeps_counts(python, attempt: str):
    result = python(f"{_PROLOGUE}\n{HELD[attempt]}\ntime.sleep(30)\n", memory_bytes=128 << 20, wall_s=60, cpu_s=60)
    assert result.outcome is Outcome.MEMORY, result


def test_a_process_counts_whose_first_thread_has_ended(python):
    source = """
import ctypes, os, threading, time
def first_has_ended():
    with open(f"/proc/{os.getpid()}/stat") as file: return file.read().rpartition(")")[2].split()[0] == "Z"
def hold():
    while not first_has_ended(): time.sleep(0.01)
    kept = b"x" * (40 << 20)
    time.sleep(30)
for _ in range(8):
    if os.fork() == 0:
        threading.Thread(target=hold).start()
        ctypes.CDLL(None).syscall(60, 0)
time.sleep(30)
"""
    result = python(source, memory_bytes=160 << 20, wall_s=60)
    assert result.outcome is Outcome.MEMORY, result


def test_what_was_deleted_and_closed_counts_no_more(python):
    source = """
import os, socket, time
for number in range(12):
    with open("/tmp/a", "wb") as file: file.write(bytes(20 << 20))
    os.unlink("/tmp/a")
for number in range(2000):
    ours, theirs = socket.socketpair(); ours.close(); theirs.close()
time.sleep(0.1)
"""
    result = python(source, memory_bytes=128 << 20)
    assert (result.outcome, result.exit_code) == (Outcome.EXITED, 0), result


def test_a_jail_whose_memory_cannot_be_watched_does_not_begin(sandbox, monkeypatch):
    from workbench.sandbox import memory

    monkeypatch.setattr(memory, "WRITABLE", ("tmp", "nosuch"))
    with pytest.raises(WorldError, match="cannot be watched"):
        sandbox.run(Job(argv=["true"]))


def test_a_job_without_time_does_not_begin(sandbox):
    assert sandbox.run(Job(argv=["true"], limits=Limits(wall_s=0.0))).outcome is Outcome.TIMEOUT


def test_a_job_is_not_charged_with_what_the_kernel_notes_of_others(sandbox):
    """A neighbour has it hold more than the job may, and both the job's processes and its files are few."""
    ends, kept = [os.pipe() for _ in range(40)], []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(sandbox.run, Job(argv=["sleep", "4"], limits=Limits(memory_bytes=64 << 20)))
        try:
            for _ in range(20):
                kept.append(select.epoll())
                for end, _ in ends:
                    for number in range(500, 1000):
                        os.dup2(end, number)
                        kept[-1].register(number, select.EPOLLIN)
                os.closerange(500, 1000)
            result = running.result()
        finally:
            for one in kept:
                one.close()
            for pair in ends:
                for end in pair:
                    os.close(end)
    assert (result.outcome, result.exit_code) == (Outcome.EXITED, 0), result
