"""The resident policy process: answers hooks over a socket, moves the refs of accepted pushes, wakes the worker.

One per hub, started by the first push that finds none, gone after a while without pushes, or when its folder or its
code is another (``standing``); its threads are ``reception``'s. ``pre-receive`` judges a push while its objects are in
quarantine, and plans: any number at once, nobody waits for another. ``proc-receive`` moves its refs as one ledger
entry, so that a push is all or nothing whenever it is cut off; that alone is done one at a time. Not here: the rules
(``policy``) and what is started (``planning``).
"""

from __future__ import annotations

import gc
import math
import os
import pwd
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from workbench.domain import push as rules
from workbench.domain import roles
from workbench.domain.errors import Conflict, NotFound, Refused, ToolMissing, WorkbenchError
from workbench.domain.ids import ZERO_ID, ObjectId, Ulid
from workbench.domain.ledger import Action, RefMove
from workbench.domain.push import Push
from workbench.domain.refs import MAIN, AgentVersion, ArtifactTag
from workbench.domain.roles import OWNER
from workbench.domain.run import FINAL
from workbench.hub import beside, older, runs
from workbench.hub.context import Hub
from workbench.hub.planning import Derivation, check_effect, describe
from workbench.hub.policy import CleanTrees, Judged, judge
from workbench.hub.queue import waiting
from workbench.hub.reception import Reception
from workbench.hub.standing import Standing
from workbench.hub.tiers import load_tier
from workbench.hub.wire import Answer, Request, await_end, read_request
from workbench.hub.work import Work
from workbench.hub.worker import poke, worker_is_alive
from workbench.pipeline import watch
from workbench.ports.store import Objects
from workbench.system import locks

Stood = tuple[ObjectId | None, frozenset[str]]

IDLE_S = 900.0
_NAMED = 5  # refs in the title of a ledger entry; all of them are its moves
WAITER_LOOKS_S = 1.0  # between two looks at the worker while a pusher waits for a run
_UNDECIDED = "  the rest of the plan is made by the worker"
LOOK_AGAIN_S = (1.0, 5.0, 20.0)  # after an accepted push: the worker may have been killed
LOOK_AROUND_S = 30.0  # between two looks at our own folder and socket
LOOK_SOON_S = 1.0  # the same while somebody is answered: what is due is known when that has ended
PLAN_S = 2.0  # to decide what a push starts; after that the worker decides it
MAX_PLANNING = 8  # plans at once; some go on after their push stopped waiting
MAX_ENTRANCES_OF_ONE = 100  # each has a thread of ours until it ends, and there are not more than ``reception.MOST``
MAX_JUDGED = 1000  # judged pushes whose refs have not moved; most of them were cut off
TRIES = 5  # to judge a push again because the hub has moved
HOUSEKEEPING_PUSHES = 50  # after so many a worker is started, for housekeeping alone if nothing waits
ENDING_S = 5.0  # for a process that holds the lock and does not answer any more to let go of it


@dataclass
class PolicyServer:
    hub: Hub
    idle_s: float = IDLE_S
    _clean: CleanTrees = field(default_factory=CleanTrees)
    _moving: threading.Lock = field(default_factory=threading.Lock)
    _planning: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MAX_PLANNING))
    _judged: dict[int, tuple[Judged, Stood]] = field(default_factory=dict)  # by receive-pack, until its refs move
    _entrances: dict[str, str] = field(default_factory=dict)  # who pushes, by the token of the entrance they came by
    _num_moved: int = 0
    _kept_house: int = 1 - HOUSEKEEPING_PUSHES  # how many had moved when a worker was last started: at the first
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
                self._begin()
                threading.Thread(target=self._settle, name="settle", daemon=True).start()
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

    def _begin(self) -> None:
        try:
            older.begin(self.hub)
        except (WorkbenchError, OSError) as error:  # the worker tries again
            print(f"policy: {error}", file=sys.stderr, flush=True)

    def _settle(self) -> None:
        """What moved while no process of the hub lived is recorded, and its work begun."""
        try:
            for stray in beside.settle(self.hub):
                print(f"policy: {stray.move.ref} moved beside the ledger: {stray.why}", file=sys.stderr, flush=True)
        except (WorkbenchError, OSError) as error:
            print(f"policy: {error}", file=sys.stderr, flush=True)
        self._ensure_worker()

    def _converse(self, connection: socket.socket, answer: Answer) -> None:
        accepted = False
        try:
            _check_peer(connection)
            request = read_request(connection)
            if request.verb == "pre-receive":
                accepted = self._pre_receive(request, answer)
            elif request.verb == "proc-receive":
                accepted = self._proc_receive(request, answer)
            elif request.verb == "entrance":
                self._admit(request, connection, answer)
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

    # --- who pushes --------------------------------------------------------------------------------------------------

    def _admit(self, request: Request, connection: socket.socket, answer: Answer) -> None:
        """An entrance says who comes by it, for as long as it keeps this connection open."""
        name = roles.check_pusher(request.options[0] if request.options else "")
        if list(self._entrances.values()).count(name) >= MAX_ENTRANCES_OF_ONE:
            raise Refused(f"{MAX_ENTRANCES_OF_ONE} pushes by {name} are under way", "push again when one has ended")
        self._entrances[request.entrance] = name
        try:
            answer.admit()
            await_end(connection)
        finally:
            self._entrances.pop(request.entrance, None)

    def _pusher(self, request: Request) -> str:
        if not request.entrance:
            return OWNER
        name = self._entrances.get(request.entrance)
        if name is None:
            raise Refused("the hub's policy process was replaced while you pushed", "push again")
        return name

    # --- pre-receive -------------------------------------------------------------------------------------------------

    def _pre_receive(self, request: Request, answer: Answer) -> bool:
        judged, stood = self._judge(request)
        if judged.push.options.dry:
            said = ("workbench: dry run: nothing was changed", *judged.lines)
            answer.say("".join(f"{line}\n" for line in said))
            return False
        self._judged[request.receiver] = (judged, stood)
        while len(self._judged) > MAX_JUDGED:
            self._judged.pop(next(iter(self._judged)), None)
        return True

    def _judge(self, request: Request) -> tuple[Judged, Stood]:
        """Refused, or what the push will do, and where the hub stood. Reads the quarantine while there is one."""
        options = rules.parse_options(request.options)
        push = Push(rules.parse_updates(request.stdin.splitlines()), options, self._pusher(request))
        stood = self._stands(push)
        objects = self.hub.open_objects(self._quarantine(request))
        judged = judge(push, objects, self.hub.repository.refs, self._clean)
        check_effect(push.moves, options)
        if judged.main is not None and rules.under_any(judged.changed, ("ci/tiers.toml",)):
            for tier in rules.TIERS:
                load_tier(objects.view, judged.main, tier)
        return self._planned(judged, objects.view), stood

    def _stands(self, push: Push) -> Stood:
        """What of the hub a judgement rests on: another push may have moved it since."""
        repository, tags = (
            self.hub.repository,
            [m.ref for m in push.moves if isinstance(m.ref, AgentVersion | ArtifactTag)],
        )
        main = repository.refs.get(str(MAIN))
        if main and push.move(MAIN) is None and not any(isinstance(tag, AgentVersion) for tag in tags):
            table = repository.objects.entry(main, roles.FILE)  # of main, this alone
            main = table.id if table else None
        families = {rules.family(tag) for tag in tags}
        names = {name for family in families for name in repository.refs.all(family) if "/" not in name[len(family) :]}
        return main, frozenset(names)

    def _quarantine(self, request: Request) -> list[Path]:
        if not request.quarantine:
            return []
        folder = os.path.realpath(request.quarantine)
        if not _is_same(os.path.dirname(folder), self.hub.layout.git_dir / "objects"):
            raise Refused("the quarantine is not inside this hub", "push through git-receive-pack")
        return [Path(folder)]

    # --- planning ----------------------------------------------------------------------------------------------------

    def _planned(self, judged: Judged, view: Objects) -> Judged:
        """With what the push starts and why, as far as that is decided in time. Refused where it cannot be."""
        plan = _Planning()
        until_s = time.monotonic() + PLAN_S
        if self._planning.acquire(timeout=PLAN_S):
            threading.Thread(target=self._plan, args=(plan, judged, view), name="plan", daemon=True).start()
            plan.done.wait(until_s - time.monotonic())
        if plan.error is not None:
            raise plan.error
        if plan.work is None:
            return judged.with_work(None, ["what this push starts is decided by the worker"])
        return judged.with_work(plan.work, [*plan.lines, *([] if plan.done.is_set() else [_UNDECIDED])])

    def _plan(self, plan: _Planning, judged: Judged, view: Objects) -> None:
        try:
            plan.work = self._derivation.work(view, judged)
            for work in plan.work:
                plan.lines.append(f"{work.label}: {work.why}")
                if work.kind == "tier":
                    plan.lines += [f"  {command.name}" for command in load_tier(view, work.source, work.subject)]
                    continue
                try:
                    plan.lines += describe(self._derivation.plan(self.hub.repository, view, work))
                except (NotFound, ToolMissing) as error:
                    plan.lines.append(f"  cannot be planned yet: {_one_line(error)}")
            plan.lines = plan.lines or ["nothing to run"]
        except Exception as error:  # noqa: BLE001  (it is raised where the push is judged)
            plan.error = error
        finally:
            self._planning.release()
            plan.done.set()

    # --- proc-receive ------------------------------------------------------------------------------------------------

    def _proc_receive(self, request: Request, answer: Answer) -> bool:
        moves = rules.parse_updates(request.stdin.splitlines())
        judged, stood = self._judged.pop(request.receiver, (None, None))
        if judged is None and self._stand_already(moves):
            answer.say("workbench: these refs have been moved already\n")  # by a policy process that then ended
            self._ensure_worker()
            return True
        for _ in range(TRIES):
            if judged is None or judged.push.moves != moves:
                judged, stood = self._judge(request)
            with self._moving:
                if stood == self._stands(judged.push):
                    run = self._move(judged)
                    break
            judged = None
        else:
            raise Refused(f"the hub moved {TRIES} times while this push was judged", "push again")
        self._pushed_s = time.monotonic()
        options = judged.push.options
        said = ["workbench: nothing to run" + (" (-o ci.skip)" if options.skip else "")]
        if judged.starts:
            said = [f"workbench: run {run}", *judged.lines, f"follow: workbench runs tail {run}"]
        text = "".join(f"{line}\n" for line in said)
        is_followed = options.wait and judged.starts
        if is_followed:
            answer.moved(text)
        if judged.starts or self._is_to_keep_house():
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

    def _move(self, judged: Judged) -> Ulid:
        """The commit point of a push: one entry, with all that its work needs."""
        push, run = judged.push, self.hub.clock.ulid()
        evidence: dict[str, Any] = {"pusher": push.pusher, "options": push.options.to_json()}
        if judged.starts:
            evidence["run"] = run
        if judged.work:
            evidence["work"] = [work.to_json() for work in judged.work]
        names = ", ".join([*(str(move.ref) for move in push.moves[:_NAMED]), *("…" for _ in push.moves[_NAMED:][:1])])
        try:
            self.hub.repository.ledger.change(
                Action.PUSH, push.moves, who=_who(push.pusher), why=f"push {names}", evidence=evidence
            )
        except Conflict as lost:
            raise Refused(f"while you pushed, {lost.what}", "fetch, and push again") from lost
        self._num_moved += 1
        return run

    # --- after the push ----------------------------------------------------------------------------------------------

    def _ensure_worker(self) -> None:
        try:
            if worker_is_alive(self.hub):
                poke(self.hub.layout.worker_wake)
            elif self._is_to_keep_house() or waiting(self.hub.repository):
                self._kept_house = self._num_moved
                self.hub.start_worker()
        except (WorkbenchError, OSError) as error:
            print(f"policy: {error}", file=sys.stderr, flush=True)

    def _is_to_keep_house(self) -> bool:
        return self._num_moved >= self._kept_house + HOUSEKEEPING_PUSHES

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


@dataclass
class _Planning:
    """What a plan has come to so far; its thread goes on when nobody waits for it any more."""

    work: tuple[Work, ...] | None = None
    lines: list[str] = field(default_factory=list)
    error: Exception | None = None
    done: threading.Event = field(default_factory=threading.Event)


def _check_peer(connection: socket.socket) -> None:
    """Who asks is a process of the hub's owner: the kernel says so."""
    uid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    if uid != os.geteuid():
        raise Refused(f"this hub belongs to another user than yours (uid {uid})", "push over ssh, as its owner")


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
    """The owner is a system user, whose name the passwd file has."""
    if pusher == OWNER:
        try:
            pusher = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            pusher = f"uid-{os.geteuid()}"
    return f"{pusher} <{pusher}@localhost>"


def _one_line(error: WorkbenchError) -> str:
    what, hint = (" ".join(text.split()) for text in (error.what, error.hint))
    return f"{what}: {hint}" if hint else what
