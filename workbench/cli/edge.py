"""The edge of the process: streams that take any text, and every end as an exit code. Imports next to nothing.

An error is two lines on standard error: what is wrong, what to do. With ``--json`` standard output also gets it, as one
line of the shape that a stage's ``error.json`` has; that of a native crash has its parts besides.
"""

from __future__ import annotations

import errno
import faulthandler
import io
import os
import sys

from workbench.domain.errors import NativeCrash, ToolMissing, UserError, WorkbenchError, WorldError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED = 130  # as a shell says it: 128 and the signal's number
_DISTRIBUTIONS = {  # of modules that are called otherwise
    "llama_cpp": "llama-cpp-python",
    "askalono": "pyaskalono",
    "opentelemetry": "opentelemetry-sdk",
    "google": "protobuf",
}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def ended(command: Callable[[], int], *, as_json: bool) -> int:
    """Run a command to its end, whatever that is; the exit code. A reader that has seen enough is no error."""
    _settle_streams(as_json)
    faulthandler.enable(2)  # a crash of native code in a command of ours says where Python stood
    code = 0
    try:
        code = _told(command, as_json)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        code = 0
    except OSError as error:  # what was still to be written cannot be
        code = code or _tell(as_world_error(error), as_json=False)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more
    return code


def _told(command: Callable[[], int], as_json: bool) -> int:
    try:
        return command()
    except KeyboardInterrupt as stop:
        return 128 + getattr(stop, "signum", INTERRUPTED - 128)
    except SystemExit as stop:  # how typer ends: what there is to say has been said
        cause = stop.__context__
        if isinstance(cause, BrokenPipeError):
            raise cause from None
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        message = getattr(cause, "format_message", None)  # of a usage error
        if as_json and message is not None:
            _tell_programs(UserError(message(), "see --help"))
        return code
    except WorkbenchError as error:
        return _tell(error, as_json=as_json)
    except BrokenPipeError:
        raise
    except ModuleNotFoundError as error:
        missing = as_tool_missing(error)
        if missing is None:
            raise
        return _tell(missing, as_json=as_json)
    except OSError as error:
        return _tell(as_world_error(error), as_json=as_json)


def as_tool_missing(error: ModuleNotFoundError) -> ToolMissing | None:
    """For a library of others that is not installed, the command that brings it; None for a module of our own."""
    module = (error.name or "").partition(".")[0]
    if module in ("", "workbench", "agents"):
        return None
    from workbench.config.installed import command_for

    return ToolMissing(f"{module} is not installed", f"install it: {command_for(_DISTRIBUTIONS.get(module, module))}")


def as_world_error(error: OSError) -> WorldError:
    """What the system refused, with what to do about it."""
    what = error.strerror or str(error)
    if isinstance(error.filename, str | bytes) and error.filename:
        what += f": {os.fsdecode(error.filename)}"
    if error.errno in _FULL:
        return WorldError(f"the disk is full ({what})", "free some space; a change is made whole, or not at all")
    if error.errno in _FORBIDDEN:
        return WorldError(what, "use a place that you may read and write, or get the right to")
    return WorldError(what, "mend that and run it again; a change is made whole, or not at all")


def _tell(error: WorkbenchError, *, as_json: bool) -> int:
    from workbench.domain.printable import printable

    sys.stderr.write(f"error: {printable(str(error))}\n")
    if as_json:
        try:  # noqa: SIM105 - contextlib alone would add half of the time of `status`
            _tell_programs(error)
        except OSError:  # standard output may be what the error is about
            pass
    return error.exit_code


def _tell_programs(error: WorkbenchError) -> None:
    import json

    from workbench.domain.printable import printable_json

    body = {"error": type(error).__name__, "what": error.what, "hint": error.hint, "exit_code": error.exit_code}
    if isinstance(error, NativeCrash):
        body |= {"crashed": error.crashed, "ended": error.ended, "given": error.given, "log": list(error.log)}
    sys.stdout.write(printable_json(json.dumps({"format": 1, **body}, ensure_ascii=False, sort_keys=True)) + "\n")


def _settle_streams(as_json: bool) -> None:
    """Names of files are any bytes and a terminal's encoding may be any: what it lacks is shown as an escape, which is
    valid JSON as well, because JSON is always UTF-8. A closed stream takes everything."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8" if as_json else None, errors="backslashreplace")
