"""What a stage left behind, checked before any of it becomes an object: files, ``result.json`` and ``error.json``."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.domain.canonical import canonical_json
from workbench.domain.crash import read_crash
from workbench.domain.errors import LOG_LINES, NO_ANSWER, OUT_OF_MEMORY, NativeCrash, StageFailed
from workbench.domain.stage import STEP_FORMAT, StageResult
from workbench.pipeline.plain import plain
from workbench.pipeline.process import Ended

MAX_RESULT_BYTES = 8 << 20
MAX_FILES = 1_000_000  # and folders
MAX_DEPTH = 48  # folders in folders: more than that the store does not take
MAX_NESTED = 32  # values in values, in what a stage counted and measured
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
    hint = _RESULT
    try:
        if len(data) > MAX_RESULT_BYTES:
            raise ValueError(f"more than {MAX_RESULT_BYTES} bytes")
        raw = json.loads(data, parse_constant=_refuse_constant)
        if not isinstance(raw, dict) or raw.get("format") != STEP_FORMAT:
            raise ValueError(f"its format is not {STEP_FORMAT}")
        counts, metrics, breaks = raw.get("counts", {}), raw.get("metrics", {}), raw.get("breaks", "")
        if not isinstance(counts, dict) or not all(type(value) is int for value in counts.values()):
            raise ValueError("counts are not whole numbers")
        if not isinstance(metrics, dict) or not isinstance(breaks, str):
            raise ValueError("metrics is not an object, or breaks is not text")
        _check_nested(raw)
        canonical_json(raw)  # a number beyond all bounds, half a character: what no manifest can hold
    except (ValueError, RecursionError) as error:
        raise StageFailed(f"result.json of {stage} cannot be read: {error}", hint) from None
    return StageResult(counts, metrics, _text(breaks))


def failure(step: Path, stage: str, ended: Ended, log: Sequence[str], given: str) -> StageFailed | NativeCrash:
    """Why a stage process failed, in its own words where it left any; ``log`` is the end of what it wrote."""
    told = _told(step)
    if not told:
        crash = read_crash(ended.exit_code, log, step=stage, given=given, memory_ran_out=ended.memory_ran_out)
        last = f": {_text(ended.last_error).strip()}" if ended.last_error else ""
        return crash or StageFailed(f"{stage} ended with exit code {ended.exit_code}{last}")
    what, hint = _text(told["what"]), _text(str(told.get("hint", "")))
    if told.get("error") != NativeCrash.__name__:
        return StageFailed(f"{stage} failed: {what}", hint)
    crashed, end, of = (_text(str(told.get(name, ""))) for name in ("crashed", "ended", "given"))
    if end == "SIGKILL" and ended.memory_ran_out:
        end, hint = OUT_OF_MEMORY, ""
    return NativeCrash(crashed or stage, end or NO_ANSWER, given=of or given, log=log[-LOG_LINES:], hint=hint)


def _told(step: Path) -> Mapping[str, Any] | None:
    try:
        raw = json.loads(_read(step / "error.json"))
    except (OSError, ValueError, RecursionError):
        return None
    return raw if isinstance(raw, dict) and isinstance(raw.get("what"), str) else None


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


def _check_nested(value: Any) -> None:
    level = [value]
    for _ in range(MAX_NESTED):
        inside = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [each for values in inside for each in values]
    if level:
        raise ValueError(f"values are nested deeper than {MAX_NESTED}")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
