"""What a stage left behind, checked before any of it becomes an object: files, ``result.json`` and ``error.json``."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.domain.crash import read_crash
from workbench.domain.errors import LOG_LINES, NO_ANSWER, OUT_OF_MEMORY, NativeCrash, StageFailed
from workbench.domain.reading import (
    INT_MIN,
    BadInput,
    Limits,
    anything,
    load_json,
    mapping,
    optional,
    parse_json,
    record,
    text,
    whole,
)
from workbench.domain.stage import STEP_FORMAT, StageResult
from workbench.pipeline.plain import plain
from workbench.pipeline.process import Ended

MAX_RESULT_BYTES = 8 << 20
MAX_FILES = 1_000_000  # and folders
MAX_DEPTH = 48  # folders in folders: more than that the store does not take
LIMITS = Limits(size_bytes=MAX_RESULT_BYTES, values=1_000_000)
MAX_TEXT = 2000  # characters of what a stage says of its failure
_RESULT = 'it holds {"format": 1, "counts": {name: whole number}, "metrics": {…}}'


def check_files(folder: Path, stage: str) -> int:
    """How many files: regular ones alone, with names that are text. StageFailed names the first that is not."""
    if folder.is_symlink() or not folder.is_dir():
        raise StageFailed(
            f"{stage} put something else in the place of its output folder", "write into the folder given"
        )
    files = entries = 0
    waiting = [(folder, 1)]
    while waiting:
        where, depth = waiting.pop()
        for name in sorted(os.listdir(where)):
            path = where / name
            shown = str(path.relative_to(folder)).encode(errors="replace").decode()
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                raise _refused(stage, shown, "a link", "write a copy of the file instead")
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise _refused(stage, shown, "neither a file nor a folder", "write regular files only")
            if not _is_text(name):
                raise _refused(
                    stage, ascii(shown), "named with bytes that are not text", "name files in printable UTF-8"
                )
            entries += 1
            if entries > MAX_FILES:
                raise StageFailed(
                    f"{stage} left more than {MAX_FILES} files and folders", "pack small files into larger ones"
                )
            if stat.S_ISREG(mode):
                files += 1
            elif depth == MAX_DEPTH:
                raise StageFailed(f"{stage} left folders nested deeper than {MAX_DEPTH}", "write flatter folders")
            else:
                waiting.append((path, depth + 1))
    return files


def read_result(step: Path, stage: str) -> StageResult:
    """``result.json`` as a value; StageFailed where it is missing or malformed."""
    path = step / "result.json"
    try:
        data = _read(path)
    except OSError:
        hint = f"as its last act a stage writes result.json beside its output folder; {_RESULT}"
        raise StageFailed(f"{stage} ended without a result", hint) from None
    what = f"result.json of {stage}"
    result = load_json(data, _SHAPE, what=what, limits=LIMITS, error=StageFailed, hint=_RESULT)
    return replace(result, breaks=_text(result.breaks))


def failure(
    step: Path, stage: str, ended: Ended, log: Sequence[str], given: str, *, hint: str = ""
) -> StageFailed | NativeCrash:
    """Why a stage process failed, in its own words where it left any; ``log`` is the end of what it wrote, ``hint``
    what to do after a fault."""
    told = _told(step)
    if not told:
        crash = read_crash(
            ended.exit_code, log, step=stage, given=given, memory_ran_out=ended.memory_ran_out, hint=hint
        )
        last = f": {_text(ended.last_error).strip()}" if ended.last_error else ""
        return crash or StageFailed(f"{stage} ended with exit code {ended.exit_code}{last}")
    what, hint = _text(told.what), _text(told.hint)
    if told.error != NativeCrash.__name__:
        return StageFailed(f"{stage} failed: {what}", hint)
    end = _text(told.ended)
    if end == "SIGKILL" and ended.memory_ran_out:
        end, hint = OUT_OF_MEMORY, ""
    crashed, of = _text(told.crashed) or stage, _text(told.given) or given
    return NativeCrash(crashed, end or NO_ANSWER, given=of, log=log[-LOG_LINES:], hint=hint)


@dataclass(frozen=True)
class _Told:
    """``error.json``; the last three fields where native code crashed."""

    what: str
    hint: str = ""
    error: str = ""
    crashed: str = ""
    ended: str = ""
    given: str = ""


_LONG = text(most=MAX_RESULT_BYTES)
_SHAPE = record(
    StageResult,
    format=(STEP_FORMAT,),
    more=True,
    counts=optional(mapping(whole(INT_MIN)), {}),
    metrics=optional(mapping(anything()), {}),
    breaks=optional(_LONG, ""),
)
_SAID = optional(_LONG, "")
_ERROR = record(_Told, more=True, what=_LONG, hint=_SAID, error=_SAID, crashed=_SAID, ended=_SAID, given=_SAID)


def _told(step: Path) -> _Told | None:
    try:
        return _ERROR.read(parse_json(_read(step / "error.json"), LIMITS), "")
    except (OSError, BadInput):
        return None


def _read(path: Path) -> bytes:
    """A regular file, as far as it may be long: nothing that leads elsewhere, and nothing that would be waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError("no regular file")
        with open(handle, "rb", closefd=False) as file:
            return file.read(MAX_RESULT_BYTES + 1)
    finally:
        os.close(handle)


def _refused(stage: str, path: str, what: str, todo: str) -> StageFailed:
    return StageFailed(f"{stage} left {path}, which is {what}", todo)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name.isprintable()


def _text(text: str) -> str:
    return "\n".join(plain(line) for line in text[:MAX_TEXT].split("\n"))
