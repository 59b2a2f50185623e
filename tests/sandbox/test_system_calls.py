"""The filter, judged by an interpreter of its program for each architecture, also those that this machine is not."""

from __future__ import annotations

import errno
import struct

import pytest

from workbench.sandbox.system_calls import ARCHITECTURES, NEWEST, filter_of

ALLOWED, KILLED = "allowed", "killed"
NUMBERS = {
    "x86_64": {
        "read": 0,
        "mmap": 9,
        "clone": 56,
        "socket": 41,
        "ioctl": 16,
        "fcntl": 72,
        "setsockopt": 54,
        "mount": 165,
    },
    "aarch64": {
        "read": 63,
        "mmap": 222,
        "clone": 220,
        "socket": 198,
        "ioctl": 29,
        "fcntl": 25,
        "setsockopt": 208,
        "mount": 40,
    },
}


def verdict(machine: str, number: int, *arguments: int, arch: int | None = None) -> str | int:
    """What the kernel would do with a call: ALLOWED, KILLED, or the error."""
    arch = ARCHITECTURES[machine][0] if arch is None else arch
    padded = [each % 2**64 for each in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack("<IIQ6Q", number, arch, 0, *padded)
    program = list(struct.iter_unpack("<HBBI", filter_of(machine)))
    accumulator = at = 0
    while True:
        code, when_true, when_false, operand = program[at]
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, operand)[0]
        elif code == 0x54:
            accumulator &= operand
        elif code == 0x06:
            break
        else:
            tests = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}
            at += when_true if tests[code] else when_false
    return {0x7FFF: ALLOWED, 0x8000: KILLED}.get(operand >> 16, operand & 0xFFFF)


@pytest.fixture(params=ARCHITECTURES)
def asked(request):
    numbers = NUMBERS[request.param]
    return lambda name, *arguments: verdict(request.param, numbers.get(name, name), *arguments)


def test_what_programs_live_from_is_allowed(asked):
    for call in (
        ("read",), ("mmap", 0, 4096, 3, 0x22), ("mmap", 0, 4096, 3, 0x1, 5), ("mmap", 0, 4096, 3, 0x2, 5),
        ("clone", 0x3D0F00), ("clone", 17), ("clone", 0x4111), ("socket", 1, 1), ("socket", 2, 2), ("socket", 10, 1),
        ("ioctl", 1, 0x5401), ("fcntl", 1, 1), ("fcntl", 1, 6), ("setsockopt", 3, 1, 2), ("setsockopt", 3, 6, 1),
        (NEWEST,),
    ):  # fmt: skip
        assert asked(*call) == ALLOWED, call


def test_what_is_refused_has_the_error_of_a_kernel_without_it(asked):
    high = 1 << 32
    for error, *call in (
        (errno.EPERM, "mount"), (errno.ENOSYS, 444), (errno.ENOSYS, 445), (errno.ENOSYS, 446), (errno.ENOSYS, 435),
        (errno.EPERM, "mmap", 0, 4096, 3, 0x21), (errno.EPERM, "mmap", 0, 4096, 3, high | 0x8021),
        (errno.ENOMEM, "mmap", 0, 4096, 3, 0x40022), (errno.EPERM, "clone", 0x10000000 | 17),
        (errno.EPERM, "clone", 0x40000000 | 0x3D0F00), (errno.EINVAL, "clone", 0x10900),
        (errno.EAFNOSUPPORT, "socket", 16), (errno.EAFNOSUPPORT, "socket", high | 16),
        (errno.EPERM, "ioctl", 0, 0x5412), (errno.EPERM, "ioctl", 0, high | 0x541C), (errno.EPERM, "fcntl", 1, 1031),
        (errno.EINVAL, "fcntl", 1, 37), (0, "setsockopt", 3, 1, 7), (errno.ENODEV, "setsockopt", 3, 41, 20),
    ):  # fmt: skip
        assert asked(*call) == error, call


def test_a_call_that_is_newer_than_the_filter_is_unknown(asked):
    for number in (NEWEST + 1, 463, 999, 0x40000000, 0x400000A5, 0xFFFFFFFF):
        assert asked(number) == errno.ENOSYS


def test_a_call_of_another_architecture_ends_the_process():
    assert verdict("x86_64", 0, arch=0x40000003) == KILLED, "the 32-bit one that the same processor runs"


def test_an_architecture_that_is_not_known_has_no_filter():
    assert filter_of("pdp11") is None
