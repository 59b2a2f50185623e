"""The resident policy process: answers hooks over a socket, moves the refs of accepted pushes, wakes the worker.

One per hub, started by the first push that finds none, gone after a while without pushes, or when its folder or its
code is another (``standing``); its threads are ``reception``'s. ``pre-receive`` judges a push while its objects are in
quarantine; ``proc-receive`` moves its refs: one by compare-and-swap, several as one ledger entry, so that a push is all
or nothing whenever it is cut off. Not here: the rules (``policy``) and what is started (``planning``).
"""

from __future__ import annotations

import gc
import math
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from workbench.domain import push as rules
from workbench.domain.errors import Conflict, NotFound, Refused, ToolMissing, WorkbenchError
from workbench.domain.ids import ZERO_ID, ObjectId, Ulid
from workbench.domain.ledger import Action, RefMove
from workbench.domain.push import Push
from workbench.domain.refs import LEDGER
from workbench.domain.run import FINAL
from workbench.hub import runs
from workbench.hub.context import Hub, PushedRepository
from workbench.hub.intents import Intent
from workbench.hub.planning import Derivation, Job, check_effect, describe, started_by
from workbench.hub.policy import CleanTrees, Judged, judge
from workbench.hub.reception import Reception
from workbench.hub.standing import Standing
from workbench.hub.tiers import load_tier
from workbench.hub.wire import Answer, Request, read_request
from workbench.hub.worker import pending_pushes, poke, worker_is_alive
from workbench.pipeline import watch
from workbench.ports.store import Objects
from workbench.system import locks

IDLE_S = 900.0
_NAMED = 5  # refs in the title of a ledger entry; all of them are its moves
WAITER_LOOKS_S = 1.0  # between two looks at the worker while a pusher waits for a run
LOOK_AGAIN_S = (1.0, 5.0, 20.0)  # after an accepted push: the worker may have been killed
LOOK_AROUND_S = 30.0  # between two looks at our own folder and socket
LOOK_SOON_S = 1.0  # the same while somebody is answered: what is due is known when that has ended
ENDING_S = 5.0  # for a process that holds the lock and does not answer any more to let go of it


@dataclass(frozen=True)
class Accepted:
    """A push that was judged: what it starts, what its author is told, and where the hub stood when it was judged."""

    push: Push
    jobs: tuple[Job, ...]
    lines: tuple[str, ...]
    stood: tuple[int, ObjectId | None]


@dataclass
class PolicyServer:
    hub: Hub
    idle_s: float = IDLE_S
    _clean: CleanTrees = field(default_factory=CleanTrees)
    _judging: threading.Lock = field(default_factory=threading.Lock)
    _accepted: dict[int, Accepted] = field(default_factory=dict)  # by receive-pack, until its proc-receive comes
    _num_moved: int = 0
    _pushed_s: float = -math.inf  # when refs were last moved

    def __post_init__(self) -> None:
        self._derivation = Derivation(self.hub.specs)
        self._standing = Standing.now(self.hub.layout.git_dir)

    def serve(self) -> bool:
        """Answer until idle; False when another process is the hub's policy already."""
        layout = self.hub.layout
        layout.create()
        os.chdir(layout.git_dir)  # a socket's path has at most 107 bytes, so it is named from here
        name = layout.socket.relative_to(layout.git_dir)
        with socket.socket(socket.AF_UNIX) as listener:
            reception = Reception(listener, self._converse, self._standing.holds)
            with open(layout.policy_lock, "ab") as lock:
                if not _is_held(lock, name):
                    return False
                lock.truncate(0)
                lock.write(b"%d\n" % os.getpid())
                lock.flush()
                name.unlink(missing_ok=True)
                listener.bind(str(name))
                listener.listen(64)
                self._ensure_worker()
                gc.freeze()  # what was imported stays: no push waits for a look through all of it
                own = os.stat(name).st_ino
                reception.open()
                self._stay(reception, lambda: self._standing.holds_to_the_letter() and _is_there(name, own))
                if _is_there(name, own):  # named from here, so ours also where our path is another hub's by now
                    name.unlink(missing_ok=True)
                reception.close()
            reception.finish()  # the lock is free: nobody waits for those who follow their runs
        return True

    def _stay(self, reception: Reception, is_sound: Callable[[], bool]) -> None:
        """Until nobody came for a while, or we are not what we were started as."""
        looked = time.monotonic()
        while not reception.has_ended:
            now = time.monotonic()
            if self._next_look(looked) <= now:
                looked = now
                self._ensure_worker()
            is_due = reception.is_busy or self._next_look(looked) < math.inf
            ends = math.inf if is_due else reception.called_s + self.idle_s
            if ends <= now or not is_sound():
                return
            around = now + (LOOK_SOON_S if reception.is_busy else LOOK_AROUND_S)
            reception.wait(min(around, self._next_look(looked), ends))

    def _next_look(self, looked: float) -> float:
        """When to look again whether the worker lives, having done so at ``looked``."""
        return min((at for after in LOOK_AGAIN_S if (at := self._pushed_s + after) > looked), default=math.inf)

    def _converse(self, connection: socket.socket, answer: Answer) -> None:
        accepted = False
        try:
            request = read_request(connection)
            if request.verb == "pre-receive":
                accepted = self._pre_receive(request, answer)
            elif request.verb == "proc-receive":
                accepted = self._proc_receive(request, answer)
            else:
                raise Refused(f"unknown verb {request.verb!r}", "stamp the hooks again: `workbench doctor --mend`")
        except WorkbenchError as error:
            answer.say(f"workbench: refused: {_one_line(error)}\n")
        except OSError as error:  # the disk, mostly
            why = f"the hub cannot work: {error.strerror or error}: mend that, and push again"
            answer.say(f"workbench: refused: {why}\n")
            _log_traceback()
        except Exception:  # noqa: BLE001  (the edge: a bug refuses the push and is logged)
            answer.say(f"workbench: refused: the policy failed; see {self.hub.layout.log.name} in the hub\n")
            _log_traceback()
        finally:
            answer.end(accepted)

    # --- pre-receive -------------------------------------------------------------------------------------------------

    def _pre_receive(self, request: Request, answer: Answer) -> bool:
        with self._judging:
            accepted = self._judge(request)
            if accepted.push.options.dry:
                said = ("workbench: dry run: nothing was changed", *accepted.lines)
                answer.say("".join(f"{line}\n" for line in said))
                return False
            self._forget_ended()
            self._accepted[request.receiver] = accepted
        return True

    def _judge(self, request: Request) -> Accepted:
        """Refused, or what the push will do. Reads the quarantine while there is one."""
        stood = self._stands()
        options = rules.parse_options(request.options)
        push = Push(rules.parse_updates(request.stdin.splitlines()), options, request.pusher)
        objects = self.hub.open_objects(self._quarantine(request))
        judged = judge(push, objects, self.hub.repository.refs, self._clean)
        check_effect(push.moves, options)
        started = started_by(objects.view, push.moves, judged.main, judged.changed)
        jobs = self._derivation.jobs(objects.view, started, options)
        self._check_definitions(objects.view, judged)
        if options.promote and not jobs:
            raise Refused("promote has no effect: this push starts no run", "add -o ci.tier=micro")
        return Accepted(push, jobs, tuple(self._plan_lines(objects.view, jobs)), stood)

    def _stands(self) -> tuple[int, ObjectId | None]:
        """Changes whenever a push, a pin or a publication moves refs of this hub."""
        return self._num_moved, self.hub.repository.refs.get(str(LEDGER))

    def _forget_ended(self) -> None:
        """Pushes that were accepted and then ended before they asked to move their refs."""
        for receiver in [pid for pid in self._accepted if not Path("/proc", str(pid)).exists()]:
            del self._accepted[receiver]

    def _quarantine(self, request: Request) -> list[Path]:
        if not request.quarantine:
            return []
        folder = os.path.realpath(request.quarantine)
        if not _is_same(os.path.dirname(folder), self.hub.layout.git_dir / "objects"):
            raise Refused("the quarantine is not inside this hub", "push through git-receive-pack")
        return [Path(folder)]

    def _check_definitions(self, view: Objects, judged: Judged) -> None:
        if judged.main is not None and rules.under_any(judged.changed, ("ci/tiers.toml",)):
            for tier in rules.TIERS:
                load_tier(view, judged.main, tier)

    def _plan_lines(self, view: Objects, jobs: tuple[Job, ...]) -> list[str]:
        repository = PushedRepository(self.hub.repository, view)
        lines = []
        for job in jobs:
            lines.append(f"{job.label}: {job.why}")
            if job.kind == "tier":
                lines += [f"  {command.name}" for command in load_tier(view, job.source, job.subject)]
                continue
            try:
                lines += describe(self._derivation.plan(repository, job))
            except (NotFound, ToolMissing) as error:
                lines.append(f"  cannot be planned yet: {_one_line(error)}")
        return lines or ["nothing to run"]

    # --- proc-receive ------------------------------------------------------------------------------------------------

    def _proc_receive(self, request: Request, answer: Answer) -> bool:
        moves = rules.parse_updates(request.stdin.splitlines())
        with self._judging:
            accepted = self._accepted.pop(request.receiver, None)
            if accepted is None and self._stand_already(moves):
                answer.say("workbench: these refs have been moved already\n")  # by a policy process that then ended
                self._ensure_worker()
                return True
            if accepted is None or accepted.push.moves != moves or accepted.stood != self._stands():
                accepted = self._judge(request)
            run = self._move(accepted)
            self._pushed_s = time.monotonic()
        options = accepted.push.options
        said = ["workbench: nothing to run" + (" (-o ci.skip)" if options.skip else "")]
        if accepted.jobs:
            said = [f"workbench: run {run}", *accepted.lines, f"follow: workbench runs tail {run}"]
        text = "".join(f"{line}\n" for line in said)
        is_followed = options.wait and accepted.jobs
        if is_followed:
            answer.moved(text)
        self._ensure_worker()
        if not is_followed:
            answer.end(True, text)
        else:
            try:
                self._wait(run, options.wait_s, answer)
            except (WorkbenchError, OSError) as error:  # the push stands, whatever became of its run
                why = _one_line(error) if isinstance(error, WorkbenchError) else str(error)
                answer.say(f"workbench: run {run} cannot be followed here: {why}\n")
        return True

    def _stand_already(self, moves: Sequence[RefMove]) -> bool:
        refs = self.hub.repository.refs
        return all((refs.get(str(move.ref)) or ZERO_ID) == move.new for move in moves)

    def _move(self, accepted: Accepted) -> Ulid:
        """The commit point of a push. Its run's id is on disk before, so that its options are not lost."""
        repository, push, run = self.hub.repository, accepted.push, self.hub.clock.ulid()
        if accepted.jobs or push.options.to_json():
            now_ms = self.hub.clock.now_ms()
            self.hub.intents.add(Intent(run, push.moves, push.options, push.pusher, now_ms, accepted.lines))
        try:
            if len(push.moves) == 1:
                repository.ledger.swap(push.moves[0])
            else:
                names = ", ".join(str(move.ref) for move in push.moves[:_NAMED]) + (
                    ", …" if push.moves[_NAMED:] else ""
                )
                evidence = {"run": run} if accepted.jobs else {}
                repository.ledger.change(
                    Action.PUSH, push.moves, who=_who(push.pusher), why=f"push {names}", evidence=evidence
                )
        except Conflict as lost:
            self.hub.intents.remove(run)
            raise Refused(f"while you pushed, {lost.what}", "fetch, and push again") from lost
        self._num_moved += 1
        return run

    # --- after the push ----------------------------------------------------------------------------------------------

    def _ensure_worker(self) -> None:
        try:
            if worker_is_alive(self.hub):
                poke(self.hub.layout.worker_wake)
            elif pending_pushes(self.hub):
                self.hub.start_worker()
        except (WorkbenchError, OSError) as error:
            print(f"policy: {error}", file=sys.stderr, flush=True)

    def _wait(self, run: Ulid, seconds: float, answer: Answer) -> None:
        """Stream the progress of a run until it ends, the seconds are over or the pusher has gone."""
        now = time.monotonic()
        deadline, look = now + (seconds or rules.MAX_WAIT_S), now + WAITER_LOOKS_S

        def is_over() -> bool:
            nonlocal look
            if time.monotonic() > look:  # the worker may have been killed
                self._ensure_worker()
                look = time.monotonic() + WAITER_LOOKS_S
            return answer.gone or time.monotonic() > deadline

        plain = watch.PlainWatcher(_Out(answer), self.hub.clock.now_ms)  # type: ignore[arg-type]
        follow = runs.tail_run(self.hub.repository, run, follow=True, is_stopped=is_over, patience_s=math.inf)
        for event in follow:
            plain.on(event)
            if isinstance(event, watch.RunEnded) and event.run == run:
                return
        state = runs.show_run(self.hub.repository, run).state
        if state in FINAL:
            answer.say(f"run {run} {state}\n")
            return
        answer.say(f"still running; follow: workbench runs tail {run}\n")


@dataclass(frozen=True)
class _Out:
    answer: Answer

    def write(self, text: str) -> None:
        self.answer.say(text)

    def flush(self) -> None:
        return


def _is_held(lock: IO[bytes], name: Path) -> bool:
    """Take the lock of the hub's policy; False while another process answers. One that is just ending is waited for."""
    deadline = time.monotonic() + ENDING_S
    while True:
        if locks.take(lock.fileno()):
            return True
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(name))
            return False
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def _is_there(name: Path, inode: int) -> bool:
    """Whether the socket that has this name is still ours."""
    try:
        return os.stat(name).st_ino == inode
    except OSError:
        return False


def _is_same(one: str, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _log_traceback() -> None:
    with suppress(OSError):  # the log's disk may be the one that is full
        traceback.print_exc()
        sys.stderr.flush()


def _who(pusher: str) -> str:
    name = "".join(c if c.isprintable() and c not in "<>" else "?" for c in pusher)[:100].strip() or "someone"
    return f"{name} <{name.replace(' ', '.')}@localhost>"


def _one_line(error: WorkbenchError) -> str:
    what, hint = (" ".join(text.split()) for text in (error.what, error.hint))
    return f"{what}: {hint}" if hint else what
