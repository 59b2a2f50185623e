"""What people ask of runs: list, show, follow, cancel. Called by the commands and by a push that waits.

A run that says ``running`` while no walker holds it is shown as abandoned; the next worker resumes it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from workbench.domain.errors import Corrupt, NotFound, UserError
from workbench.domain.ids import Ulid, ulid
from workbench.domain.ledger import Entry
from workbench.domain.run import FINAL, RunRecord, State
from workbench.hub.queue import moves_of, run_of, waiting
from workbench.pipeline import records, watch
from workbench.pipeline.records import EVENTS, RECORD, RunFolder
from workbench.ports.store import Repository

POLL_S = 0.1
PATIENCE_S = 5.0  # with an abandoned run: another worker may take it up
KEPT_RUNS = 200
CANCEL_TRIES = 50


def _in_the_queue(repository: Repository) -> Sequence[Entry]:
    """Nothing waits in a ledger that cannot be read; ``log --ledger`` and ``doctor`` tell of that."""
    try:
        return waiting(repository)
    except Corrupt:
        return ()


def list_runs(repository: Repository, limit: int = 50) -> Sequence[RunRecord]:
    """Newest first, with what is accepted but not yet taken up."""
    queued = [_queued(push) for push in _in_the_queue(repository) if repository.runs.read(run_of(push), RECORD) is None]
    kept = [_seen(repository, record) for record in records.recent(repository, limit)]
    return sorted([*queued, *kept], key=lambda record: record.id, reverse=True)[:limit]


def find_run(repository: Repository, text: str) -> Ulid:
    """A run by its id or the beginning or end of it (6 characters or more). NotFound; UserError where several fit."""
    wanted = text.upper()
    if len(wanted) == 26:
        return ulid(wanted)
    every = [*repository.runs.list(), *map(run_of, _in_the_queue(repository))]
    fits = sorted({run for run in every if len(wanted) >= 6 and (run.startswith(wanted) or run.endswith(wanted))})
    if not fits:
        raise NotFound(f"no run {text!r}", "see `workbench runs list`; give at least 6 characters of its id")
    if len(fits) > 1:
        raise UserError(f"{len(fits)} runs fit {text}", "give more characters of its id")
    return fits[0]


def show_run(repository: Repository, run: Ulid) -> RunRecord:
    data = repository.runs.read(run, RECORD)
    if data is None:
        push = _waiting_as(repository, run)
        if push is None:
            raise NotFound(f"no run {run}", "see `workbench runs list`")
        return _queued(push)
    return _seen(repository, RunRecord.from_bytes(data))


def tail_run(
    repository: Repository,
    run: Ulid,
    *,
    follow: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
    patience_s: float = PATIENCE_S,
) -> Iterator[watch.WalkEvent]:
    """The events of a run so far; with ``follow`` those that come, until it ends or ``is_stopped``.

    Ends also when the run is abandoned for ``patience_s``; who wants to see it resumed follows again.
    """
    show_run(repository, run)
    tail, idle = _Tail(repository, run), 0
    while True:
        events = tail.more()
        yield from events
        if any(isinstance(event, watch.RunEnded) and event.run == run for event in events):
            return
        state = show_run(repository, run).state
        if state in FINAL or not follow:
            yield from tail.more()
            return
        idle = idle + 1 if state is State.ABANDONED else 0
        if is_stopped() or idle * POLL_S > patience_s:
            return
        time.sleep(POLL_S)


def cancel_run(repository: Repository, run: Ulid) -> RunRecord:
    """Ask a run to stop, or end one that has not begun. Conflict when it has ended."""
    push = _waiting_as(repository, run)
    for _ in range(CANCEL_TRIES):
        if push is None or repository.runs.read(run, RECORD) is not None:
            break
        try:
            with RunFolder.of(repository, run).held():  # so that the worker does not begin it meanwhile
                if repository.runs.read(run, RECORD) is None:
                    record = _queued(push).to(State.CANCELLED, error="cancelled before it began")
                    repository.runs.write(run, {RECORD: record.to_bytes()})
                    return record
        except records.Walked:  # the worker is just writing its record
            time.sleep(POLL_S)
    return records.request_cancel(repository, run)


def forget_old(repository: Repository, keep: int = KEPT_RUNS) -> Sequence[Ulid]:
    """Delete the oldest runs that have ended, down to ``keep``; not those that only a newer workbench can read."""
    old = [run for run in islice(repository.runs.list(), keep, None) if _has_ended(repository, run)]
    if old:
        repository.runs.delete(old)
    return old


def _has_ended(repository: Repository, run: Ulid) -> bool:
    try:
        data = repository.runs.read(run, RECORD)
        return data is None or RunRecord.from_bytes(data).state in FINAL
    except Corrupt:
        return False


@dataclass
class _Tail:
    """Whole lines that came since the last look, from the living run's folder or, once it has ended, from its ref.

    A worker that takes the run up begins a file of its own: that is read from its beginning.
    """

    repository: Repository
    run: Ulid
    _position: int = 0
    _file: int = 0  # inode

    def more(self) -> list[watch.WalkEvent]:
        try:
            with open(RunFolder.of(self.repository, self.run).events, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._file or status.st_size < self._position:
                    self._position, self._file = 0, status.st_ino
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            data = (self.repository.runs.read(self.run, EVENTS) or b"")[self._position :]
        whole = data[: data.rfind(b"\n") + 1]
        self._position += len(whole)
        lines = whole.decode("utf-8", "replace").split("\n")  # not at what Unicode calls a line end as well
        return [event for line in lines if (event := watch.decode(line)) is not None]


def _seen(repository: Repository, record: RunRecord) -> RunRecord:
    if record.state is State.RUNNING and not RunFolder.of(repository, record.id).is_held():
        return replace(record, state=State.ABANDONED, error="its worker ended; the next one resumes it")
    return record


def trigger(push: Entry) -> str:
    return f"push {', '.join(str(move.ref) for move in moves_of(push))} by {push.evidence['pusher']}"


def _waiting_as(repository: Repository, run: Ulid) -> Entry | None:
    return next((push for push in _in_the_queue(repository) if run_of(push) == run), None)


def _queued(push: Entry) -> RunRecord:
    """The record of a push whose run has none yet."""
    return RunRecord(
        id=run_of(push),
        kind="push",
        subject="push",
        source=next((move.new for move in moves_of(push)), ""),
        trigger=trigger(push),
        options=push.evidence.get("options", {}),
        created_ms=push.time_ms,
    )
