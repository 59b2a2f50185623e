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
        └── StageFailed  a stage process ended with an error                            exit 9

Our own bugs are assertions and surface as tracebacks.
"""

from __future__ import annotations


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
