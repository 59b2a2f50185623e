"""The worker: its own process, one per hub, started on demand. It runs what was pushed and not handled, one by one.

The work is in the ledger's entries, so nothing is lost however a worker or a hook ends. It outlives the pusher
and goes away after a while without work.
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
from workbench.domain.ids import ZERO_ID
from workbench.domain.ledger import Action, Entry, RefMove
from workbench.domain.push import Push, PushOptions
from workbench.domain.refs import MAIN, AgentVersion, Channel
from workbench.domain.run import RunRecord, State
from workbench.domain.version import Version
from workbench.hub import beside, runs
from workbench.hub.changes import changed_paths
from workbench.hub.context import Hub
from workbench.hub.planning import Derivation
from workbench.hub.policy import Judged
from workbench.hub.push_run import PushRun, plain
from workbench.hub.queue import moves_of, run_of, waiting
from workbench.hub.standing import Standing
from workbench.hub.work import Work
from workbench.pipeline import records
from workbench.system import locks

IDLE_S = 600.0
RETRY_S = 5.0
MAX_TRIES = 5


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
            if not mine:  # who is looks around once more, also for what moved beside the ledger
                poke(hub.layout.worker_wake)
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
                    if not _woken(wake, RETRY_S if worker.is_stuck else idle_s) and not worker.is_stuck:
                        if tidy or not _housekeeping(hub):
                            break
                        tidy = True  # once, and then another look: a push may have come meanwhile
        if not standing.is_in_place():  # what is to be done is in the folder that was moved: its next worker sees it
            return num
        if not waiting(hub.repository):
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
    _tries: dict[int, int] = field(default_factory=dict)  # by the counter of a push's entry
    _strays: Sequence[beside.Stray] = ()

    def __post_init__(self) -> None:
        self._derivation = Derivation(self.hub.specs)

    def handle_all(self) -> int:
        """Deal with every pending push, oldest first; how many. First it records what moved beside the ledger."""
        self._look_around()
        self.is_stuck = False
        num = 0
        for push in waiting(self.hub.repository):
            try:
                self._run(push)
                self.hub.repository.cache.close()  # what its steps read may leave the cache again
            except Exception as error:  # noqa: BLE001  (the edge: a bug with one push must not stop all that come after it)
                if not self._give_up(push, error):
                    self.is_stuck = True
                    break
            num += 1
        return num

    def _look_around(self) -> None:
        known = {stray.move for stray in self._strays}
        try:
            self._strays = beside.settle(self.hub, self._strays)
        except (WorkbenchError, OSError) as error:  # what was pushed is run all the same
            _log(str(error))
        for stray in self._strays:
            if stray.move not in known:
                _log(f"{stray.move.ref} moved beside the ledger, and is not run: {stray.why}")

    def _work(self, push: Entry, options: PushOptions) -> tuple[Work, ...]:
        """As the hook decided it; decided now where the hook could not."""
        if "work" in push.evidence:
            return tuple(Work.from_json(raw, options) for raw in push.evidence["work"])
        moves = moves_of(push)
        moved = next((move for move in moves if move.ref == MAIN), None)
        main = moved.new if moved else self.hub.repository.refs.get(str(MAIN))
        changed = changed_paths(self.hub.open_objects(()), moved.old, moved.new) if moved else frozenset[str]()
        judged = Judged(Push(moves, options, push.evidence["pusher"]), main, changed)
        return self._derivation.work(self.hub.repository.objects, judged)

    def _run(self, push: Entry) -> None:
        options = PushOptions.from_json(push.evidence.get("options", {}))
        work = self._work(push, options)
        record = PushRun(self.hub, self._derivation).run(run_of(push), work, runs.trigger(push))
        if record.state is State.SUCCEEDED and options.promote:
            self._promote(push, record, options.promote)
        self._handled(push, f"run {record.id} {record.state}", {"run": record.id, "state": record.state.value})
        self._record_contracts(push)
        runs.forget_old(self.hub.repository)

    def _record_contracts(self, push: Entry) -> None:
        """Of main and of versions: whoever shows or compares them reads what was recorded. A push can do without."""
        for move in moves_of(push):
            if move.new != ZERO_ID and (move.ref == MAIN or isinstance(move.ref, AgentVersion)):
                try:
                    self.hub.record_contract(self.hub.repository.objects.peel(move.new))
                except (WorkbenchError, OSError) as error:
                    _log(f"the contract of {move.ref} is not recorded: {error}")

    def _promote(self, push: Entry, record: RunRecord, channel: str) -> None:
        """The channel names the commit of the highest version that was pushed, or of main, or of the branch."""
        repository = self.hub.repository
        target = repository.objects.peel(max(moves_of(push), key=_promotes).new)
        ref = Channel(channel)
        old = repository.refs.get(str(ref)) or ZERO_ID
        if old != target:
            why = f"run {record.id} succeeded; asked for by {push.evidence['pusher']} with -o promote={channel}"
            moves = [RefMove(ref, old, target)]
            repository.ledger.change(Action.PROMOTE, moves, who=self.hub.who, why=why, evidence={"run": record.id})

    def _handled(self, push: Entry, why: str, evidence: Mapping[str, object]) -> None:
        evidence = {**evidence, "upto": push.counter}
        self.hub.repository.ledger.change(Action.HANDLED, (), who=self.hub.who, why=why, evidence=evidence)

    def _give_up(self, push: Entry, error: Exception) -> bool:
        """After some tries a push whose work cannot even be begun has failed: its run and the ledger say why."""
        tries = self._tries[push.counter] = self._tries.get(push.counter, 0) + 1
        _log(str(error))
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

    def _failed(self, push: Entry, error: Exception) -> None:
        record = PushRun(self.hub, self._derivation).give_up(run_of(push), error)
        why = plain(error)
        evidence = {"run": record.id, "state": record.state.value, "error": why}
        self._handled(push, f"run {record.id} {record.state}, given up: {why}", evidence)

    def _passed_over(self, push: Entry, error: Exception, worse: Exception) -> bool:
        """Its run cannot even say that it failed: the ledger says so, in words that need nothing of the push."""
        _log(str(worse))
        traceback.print_exception(worse)
        why = f"{plain(error)}; its run cannot say so: {plain(worse)}"
        try:
            self._handled(push, f"given up: {why}", {"error": why})
        except (WorkbenchError, OSError):
            return False
        return True


def _log(text: str) -> None:
    print(f"{time.strftime('%FT%T')} worker: {text}", file=sys.stderr, flush=True)


def _promotes(move: RefMove) -> tuple[bool, Version, bool]:
    ref = move.ref
    is_version = isinstance(ref, AgentVersion)
    return is_version, ref.version if isinstance(ref, AgentVersion) else Version(0, 0, 0), ref == MAIN
