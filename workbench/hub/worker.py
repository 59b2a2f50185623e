"""The worker: its own process, one per hub, started on demand. It runs what was pushed and not handled, one by one.

The queue is derived from refs each time, so nothing is lost however a worker or a hook ends. It outlives the pusher and
goes away after a while without work.
"""

from __future__ import annotations

import os
import select
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from workbench.domain.errors import Conflict, UserError, WorkbenchError
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.domain.push import PushOptions
from workbench.domain.refs import MAIN, AgentVersion, Channel
from workbench.domain.run import RunRecord, State
from workbench.domain.version import Version
from workbench.hub import runs
from workbench.hub.backlog import pending_in
from workbench.hub.changes import changed_paths
from workbench.hub.commits import read_commit
from workbench.hub.context import Hub
from workbench.hub.intents import Intent
from workbench.hub.planning import Derivation, Job, started_by
from workbench.hub.push_run import PushRun, plain
from workbench.hub.queue import PendingPush
from workbench.hub.standing import Standing
from workbench.pipeline import records
from workbench.system import locks

IDLE_S = 600.0
RETRY_S = 5.0
QUIET_S = 0.2  # a push that starts nothing is noted after it has ended, not while its author waits
MAX_TRIES = 5


def pending_pushes(hub: Hub) -> Sequence[PendingPush]:
    """What is pushed and not handled: a function of refs, ledger and intents."""
    return pending_in(hub.repository)


@contextmanager
def only_worker(hub: Hub) -> Iterator[bool]:
    """Whether this process is now the hub's worker; the kernel lets go when it dies."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locks.held(hub.layout.worker_lock))
        except locks.Busy:
            yield False
            return
        yield True


def worker_is_alive(hub: Hub) -> bool:
    return locks.is_held(hub.layout.worker_lock)


def work(hub: Hub, *, idle_s: float = IDLE_S) -> int:
    """Be the worker until nothing came for ``idle_s`` seconds; how many pushes were handled.

    A push that comes between the last look and letting go of the lock is seen by the look after it. A worker whose hub
    was moved, or whose code was replaced, ends between two pushes; another one goes on.
    """
    hub.layout.create()
    standing = Standing.now(hub.layout.git_dir)
    num = 0
    while True:
        with only_worker(hub) as mine:
            if not mine:
                return num
            with _wake_pipe(hub.layout.worker_wake) as wake:
                records.abandon_dead(hub.repository, hub.clock)
                worker, tidy = Worker(hub), False
                while standing.holds_to_the_letter():
                    try:
                        done = worker.handle_all()
                    except (WorkbenchError, OSError):
                        if standing.is_in_place():
                            raise
                        break
                    num += done
                    if done:
                        tidy = False
                        continue
                    if _woken(wake, RETRY_S if worker.is_stuck else idle_s):
                        if not hub.intents.all():
                            time.sleep(QUIET_S)
                    elif not worker.is_stuck:
                        if tidy or not _housekeeping(hub):
                            break
                        tidy = True  # once, and then another look: a push may have come meanwhile
        if not standing.is_in_place():  # what is to be done is in the folder that was moved: its next worker sees it
            return num
        if not pending_pushes(hub):
            return num
        if not standing.holds_to_the_letter():  # the package was upgraded
            hub.start_worker()
            return num


def _housekeeping(hub: Hub) -> bool:
    """While nothing is to be done: bitmaps are kept written, what is loose is packed. Whether that was due."""
    try:
        done = hub.repository.maintain(if_due=True)
    except (WorkbenchError, OSError) as error:
        print(f"{time.strftime('%FT%T')} worker: housekeeping: {error}", file=sys.stderr, flush=True)
        return False
    return bool(done)


@contextmanager
def _wake_pipe(path: Path) -> Iterator[int]:
    if not path.exists():
        os.mkfifo(path, 0o600)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def _woken(wake: int, timeout_s: float) -> bool:
    if not select.select([wake], [], [], timeout_s)[0]:
        return False
    with suppress(BlockingIOError):
        os.read(wake, 65536)
    return True


def poke(path: Path) -> None:
    """Wake whoever reads the pipe; without a reader nothing happens."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        os.write(fd, b"w")
    except BlockingIOError:  # full: whoever reads it is awake
        pass
    finally:
        os.close(fd)


@dataclass
class Worker:
    hub: Hub
    is_stuck: bool = False
    _tries: dict[tuple[RefMove, ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._derivation = Derivation(self.hub.specs)

    def handle_all(self) -> int:
        """Deal with every pending push, oldest first; how many."""
        began_ms = self.hub.clock.now_ms()
        pushes = pending_pushes(self.hub)
        quiet: dict[str, ObjectId] = {}
        self.is_stuck = False
        num = 0
        for push in pushes:
            options = push.intent.options if push.intent else PushOptions()
            try:
                jobs = self._jobs(push, options)
                if jobs:
                    self._note(quiet)
                    self._run(push, jobs, options)
                    self.hub.repository.cache.close()  # what its steps read may leave the cache again
                elif options.skip:
                    self._note(quiet)
                    self._handled(push, "nothing was run: -o ci.skip", {"skipped": True})
                else:
                    quiet.update({str(move.ref): move.new for move in push.moves})
                    if push.intent:
                        self.hub.intents.remove(push.intent.run)
            except Exception as error:  # noqa: BLE001  (the edge: a bug with one push must not stop all that come after it)
                if not self._give_up(push, error):
                    self.is_stuck = True
                    break
            num += 1
        self._note(quiet)
        if pushes:
            self._sweep(began_ms)
        return num

    def _sweep(self, began_ms: int) -> None:
        """What ran took hours, perhaps: what was accepted meanwhile is pending now, and as old as nothing."""
        self.hub.intents.sweep([push.intent.run for push in pending_pushes(self.hub) if push.intent], began_ms)

    def _jobs(self, push: PendingPush, options: PushOptions) -> tuple[Job, ...]:
        moved = next((move for move in push.moves if move.ref == MAIN), None)
        objects = self.hub.open_objects(())
        main = moved.new if moved else self.hub.repository.refs.get(str(MAIN))
        changed = frozenset[str]()
        if moved:
            trees = [read_commit(objects, id).tree if id != ZERO_ID else None for id in (moved.old, moved.new)]
            changed = changed_paths(objects, trees[0], trees[1])
        started = started_by(objects.view, push.moves, main, changed)
        return self._derivation.jobs(self.hub.repository.objects, started, options)

    def _run(self, push: PendingPush, jobs: Sequence[Job], options: PushOptions) -> None:
        intent = push.intent or self._described(push)
        names = ", ".join(str(move.ref) for move in push.moves)
        trigger = f"push {names} by {intent.pusher}"
        record = PushRun(self.hub, self._derivation).run(intent.run, jobs, trigger)
        if record.state is State.SUCCEEDED and options.promote:
            self._promote(push, record, options.promote, intent.pusher)
        self._handled(push, f"run {record.id} {record.state}", {"run": record.id, "state": record.state.value})
        self.hub.intents.remove(intent.run)
        runs.forget_old(self.hub.repository)

    def _described(self, push: PendingPush) -> Intent:
        """What was only found in the refs gets a run id that a restarted worker finds again."""
        clock = self.hub.clock
        intent = Intent(clock.ulid(), push.moves, PushOptions(), "someone", clock.now_ms())
        self.hub.intents.add(intent)
        return intent

    def _promote(self, push: PendingPush, record: RunRecord, channel: str, pusher: str) -> None:
        """The channel names the commit of the highest version that was pushed, or of main, or of the branch."""
        repository = self.hub.repository
        target = repository.objects.peel(max(push.moves, key=_promotes).new)
        ref = Channel(channel)
        old = repository.refs.get(str(ref)) or ZERO_ID
        if old != target:
            why = f"run {record.id} succeeded; asked for by {pusher} with -o promote={channel}"
            moves = [RefMove(ref, old, target)]
            repository.ledger.change(Action.PROMOTE, moves, who=self.hub.who, why=why, evidence={"run": record.id})

    def _note(self, quiet: dict[str, ObjectId]) -> None:
        """One entry for all pushes in a row that start nothing."""
        if quiet:
            moves = tuple(RefMove.named(ref, ZERO_ID, id) for ref, id in quiet.items())
            quiet.clear()
            self._handled(PendingPush(moves, None), "nothing to run", {})

    def _handled(self, push: PendingPush, why: str, evidence: Mapping[str, object]) -> None:
        refs = {str(move.ref): move.new for move in push.moves}
        self.hub.repository.ledger.change(
            Action.HANDLED, (), who=self.hub.who, why=why, evidence={**evidence, "refs": refs}
        )
        if push.intent:
            self.hub.intents.remove(push.intent.run)

    def _give_up(self, push: PendingPush, error: Exception) -> bool:
        """After some tries a push whose work cannot even be begun has failed: its run and the ledger say why."""
        tries = self._tries[push.moves] = self._tries.get(push.moves, 0) + 1
        print(f"{time.strftime('%FT%T')} worker: {error}", file=sys.stderr, flush=True)
        if not isinstance(error, WorkbenchError | OSError):
            traceback.print_exception(error)
        may_pass = isinstance(error, Conflict) or not isinstance(error, UserError)
        if may_pass and tries < MAX_TRIES:
            return False
        try:
            self._failed(push, error)
        except Exception as worse:  # noqa: BLE001  (a record that cannot be read or written must not stop what comes after)
            if isinstance(worse, Conflict | OSError) and tries < 2 * MAX_TRIES:
                return False
            return self._passed_over(push, error, worse)
        return True

    def _failed(self, push: PendingPush, error: Exception) -> None:
        intent = push.intent or self._described(push)
        record = PushRun(self.hub, self._derivation).give_up(intent.run, error)
        why = plain(error)
        evidence = {"run": record.id, "state": record.state.value, "error": why}
        self._handled(push, f"run {record.id} {record.state}, given up: {why}", evidence)
        self.hub.intents.remove(intent.run)

    def _passed_over(self, push: PendingPush, error: Exception, worse: Exception) -> bool:
        """Its run cannot even say that it failed: the ledger says so, in words that need nothing of the push."""
        print(f"{time.strftime('%FT%T')} worker: {worse}", file=sys.stderr, flush=True)
        traceback.print_exception(worse)
        why = f"{plain(error)}; its run cannot say so: {plain(worse)}"
        try:
            self._handled(push, f"given up: {why}", {"error": why})
        except (WorkbenchError, OSError):
            return False
        return True


def _promotes(move: RefMove) -> tuple[bool, Version, bool]:
    ref = move.ref
    is_version = isinstance(ref, AgentVersion)
    return is_version, ref.version if isinstance(ref, AgentVersion) else Version(0, 0, 0), ref == MAIN
