"""What stage processes leave behind: processes that still run.

A process is known by its id together with its start time, and by ``TMPDIR``, the scratch folder that its step alone was
started with: what a stage started in a session of its own is found by that.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

ROUNDS = 10  # sweeps over all processes: one that forks between two reads is met by the next


def process_identity(pid: int) -> str:
    """The start time of a process as the kernel tells it: with the id it names one process only. Empty: it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def write_note(note: Path, pid: int, scratch: str) -> None:
    """Leave a note of a stage process, so that whoever comes after us can end it."""
    raw = {"pid": pid, "started": process_identity(pid), "scratch": scratch, "folder": _folder_identity(note.parent)}
    note.write_text(json.dumps(raw))


def end_noted(note: Path) -> None:
    """End what a dead walker left running, by the note that it wrote. A note that was copied with its folder is of a
    process that belongs to the original."""
    try:
        raw = json.loads(note.read_bytes())
        if raw.get("folder", "") not in ("", _folder_identity(note.parent)):
            return
        pid, started, scratch = int(raw["pid"]), str(raw["started"]), str(raw.get("scratch", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    if started and process_identity(pid) == started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    end_strays(scratch)


def _folder_identity(folder: Path) -> str:
    """It stays when the folder is moved, and a copy has another one."""
    status = os.stat(folder)
    return f"{status.st_dev}:{status.st_ino}"


def end_strays(scratch: str) -> None:
    """End every process whose ``TMPDIR`` is this step's own folder, also those that left the stage's group."""
    if not scratch:
        return
    mark = b"TMPDIR=" + os.fsencode(scratch)
    for _ in range(ROUNDS):
        if not sum(_end_marked(pid, mark) for pid in _processes()):
            return


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _end_marked(pid: int, mark: bytes) -> bool:
    """Whether this process had to be ended; False for one that is gone, has ended or is somebody else's."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if mark not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
