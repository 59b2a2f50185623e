"""The exceptions of the workbench, drawn as a tree. Not here: how they are printed (see ``cli``).

::

    WorkbenchError
    ├── UserError        the user's mistake: says what is wrong and what to do next     exit 2
    │   ├── Refused      a rule forbids it (a tag that exists, an unknown push option)  exit 3
    │   ├── NotFound     no such ref, artifact, run, file                               exit 4
    │   └── Conflict     lost a compare-and-swap; names the current value               exit 5
    └── WorldError       the world failed (disk, tool, network, corrupt object)         exit 6
        ├── ToolMissing  a program is not installed; names the command that installs it exit 7
        ├── Corrupt      stored bytes do not match their digest                         exit 8
        ├── StageFailed  a stage process ended with an error                            exit 9
        └── NativeCrash  native code crashed, took all memory or hung; its process ended exit 10

Our own bugs are assertions and surface as tracebacks.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

OUT_OF_MEMORY, NO_ANSWER, PANIC = "out of memory", "no answer", "panic"  # how native code may end besides by a signal
LOG_LINES, LOG_WIDTH = 20, 300  # what an error tells of a log: the end of it


class WorkbenchError(Exception):
    """An error with a sentence that says what is wrong and one that says what to do next."""

    exit_code = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what if not hint else f"{what}\n  {hint}")
        self.what = what
        self.hint = hint


class UserError(WorkbenchError):
    exit_code = 2


class Refused(UserError):
    exit_code = 3


class NotFound(UserError):
    exit_code = 4


class Conflict(UserError):
    """A compare-and-swap was lost. ``current`` is the value that stands now (empty: the ref does not exist)."""

    exit_code = 5

    def __init__(self, what: str, hint: str = "", *, ref: str = "", current: str = "") -> None:
        super().__init__(what, hint)
        self.ref = ref
        self.current = current


class WorldError(WorkbenchError):
    exit_code = 6


class ToolMissing(WorldError):
    exit_code = 7


class Corrupt(WorldError):
    exit_code = 8


class StageFailed(WorldError):
    exit_code = 9


class NativeCrash(WorldError):
    """Native code (a library in C, C++ or Rust) ended its process, or the process had to be ended. It is no verdict on
    what the code was given.

    ``crashed`` names the library and the step ("llama.cpp in package"). ``ended`` is a signal's name ("SIGSEGV"),
    ``OUT_OF_MEMORY``, ``NO_ANSWER`` or ``PANIC``. ``given`` is the input, ``log`` the end of what it wrote, made
    printable.
    """

    exit_code = 10

    def __init__(self, crashed: str, ended: str, *, given: str = "", log: Sequence[str] = (), hint: str = "") -> None:
        how = _HOW.get(ended) or f"{'crashed' if ended in _FAULTS else 'was ended'} ({ended})"
        what = f"{crashed} {how}" + (f" on {_shown(given)}" if given else "")
        super().__init__(what, hint or _NEXT.get(ended) or (_TRY if ended in _FAULTS else _AGAIN))
        self.crashed = crashed
        self.ended = ended
        self.given = given
        self.log = tuple(_shown(line) for line in log if line.strip())[-LOG_LINES:]

    def __str__(self) -> str:
        return "\n  ".join((self.what, *(f"| {line}" for line in self.log), self.hint))


_FAULTS = frozenset({"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS", PANIC})
_HOW = {OUT_OF_MEMORY: "ran out of memory", NO_ANSWER: "gave no answer in time"}
_TRY = "the library or this machine is at fault: `workbench doctor` tries each library"
_AGAIN = "something outside ended it: run it again"
_NEXT = {
    OUT_OF_MEMORY: "free some memory, or give it less at once",
    "SIGKILL": "something outside ended it, mostly the system when memory runs out: see dmesg, then run it again",
    NO_ANSWER: "run it again when the machine has less to do; `workbench doctor` tries each library",
}


def signal_name(number: int) -> str:
    """``SIGSEGV`` for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _shown(text: str) -> str:
    """Printable, and not longer than a line of a terminal or three: whatever crashed may have written anything."""
    return "".join(c if c.isprintable() else " " for c in text[:LOG_WIDTH]).strip()
