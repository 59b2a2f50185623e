"""How a process with native code in it ended, read from its exit code and its last lines. Pure: no process here.

Our children are started with ``PYTHONFAULTHANDLER``: on a fatal signal Python writes where each thread stood::

    Fatal Python error: Segmentation fault
    Current thread 0x00007f3a5c0 (most recent call first):
      File "/…/site-packages/sentencepiece/__init__.py", line 468 in _EncodeAsIds

The first frame of an installed library names what crashed. Where there is none (an extension without Python of its own,
a grammar), the frame that called it does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from workbench.domain.errors import NO_ANSWER, OUT_OF_MEMORY, PANIC, NativeCrash, signal_name

_FATAL = "Fatal Python error: "
_CURRENT = ("Current thread ", "Stack (most recent call first)")  # of all threads, or of one alone
_FRAME = re.compile(r'\s+File "(?P<path>[^"]*)", line (?P<line>\d+) in (?P<function>\S+)')
_INSTALLED = re.compile(r"/(?:site-|dist-|run/)packages/(?!workbench\b)(?P<library>[A-Za-z0-9_]+)")
_MEMORY = re.compile(
    r"\bMemoryError\b|std::bad_alloc|failed to map segment|memory allocation (?:of \d+ bytes|still) failed"
    r"|can(?:'|no)t allocate memory|out of memory",
    re.I,
)
_PANIC = "pyo3_runtime.PanicException"  # how Python ends when a library in Rust gives up
_BEFORE, _FRAMES = 8, 8  # lines of the log before Python's stack, and frames of that
_SIGKILL, _SIGXCPU = 9, 24
_FAULTS = frozenset({4, 5, 6, 7, 8, 11, 31})  # SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGSEGV SIGSYS


def read_crash(
    exit_code: int,
    log: Sequence[str],
    *,
    step: str,
    library: str = "",
    given: str = "",
    memory_ran_out: bool = False,
    hint: str = "",
) -> NativeCrash | None:
    """The crash; None for a process that ended in order, whatever it says of its work.

    ``exit_code`` is negative for a signal, or 128 and a fault's number where a shell or a sandbox told it.
    ``library``: what ran in it, where only one can have crashed. ``memory_ran_out``: the kernel ended processes for it
    meanwhile. ``hint``: what to do after a fault.
    """
    number = -exit_code if exit_code < 0 else exit_code - 128
    if exit_code < 0 or number in (*_FAULTS, _SIGKILL, _SIGXCPU):
        ended = _ended_by(number, log, memory_ran_out)
    elif exit_code > 0 and _MEMORY.search(_last(log)):
        ended = OUT_OF_MEMORY
    elif exit_code > 0 and _PANIC in _last(log):
        ended = PANIC
    else:
        return None
    stack = _stack(log)
    crashed = f"{library} in {step}" if library else _what(stack, step)
    is_fault = number in _FAULTS and ended != OUT_OF_MEMORY
    return NativeCrash(crashed, ended, given=given, log=_shown(log, stack), hint=hint if is_fault else "")


def _ended_by(number: int, log: Sequence[str], memory_ran_out: bool) -> str:
    if number == _SIGXCPU:
        return NO_ANSWER
    said = number in _FAULTS and any(map(_MEMORY.search, _before(log)))
    return OUT_OF_MEMORY if said or (number == _SIGKILL and memory_ran_out) else signal_name(number)


def _what(stack: Sequence[str], step: str) -> str:
    for line in stack:
        if found := _INSTALLED.search(line):
            return f"{found['library']} in {step}"
    frame = _FRAME.match(stack[0]) if stack else None
    return f"native code at {'/'.join(frame['path'].split('/')[-2:])}:{frame['line']} in {step}" if frame else step


def _stack(log: Sequence[str]) -> list[str]:
    """The frames of the thread that crashed, the innermost first."""
    begin = next((at for at, line in enumerate(log) if line.startswith(_CURRENT)), len(log))
    frames = []
    for line in log[begin + 1 :]:
        if not _FRAME.match(line):
            break
        frames.append(line)
    return frames


def _shown(log: Sequence[str], stack: Sequence[str]) -> list[str]:
    """What was said before the crash, what Python called it, and where: not the other threads."""
    fatal = [line for line in log if line.startswith(_FATAL)][:1]
    return [*_before(log), *fatal, *(line.strip() for line in stack[:_FRAMES])]


def _before(log: Sequence[str]) -> Sequence[str]:
    fatal = next((at for at, line in enumerate(log) if line.startswith(_FATAL)), len(log))
    return log[:fatal][-_BEFORE:]


def _last(log: Sequence[str]) -> str:
    return next((line for line in reversed(log) if line.strip()), "")
