"""The resident policy process: answers hooks over a socket, leaves the message for ``post-receive``, wakes the worker.

One per hub, started by the first push that finds none, gone after a while without pushes. It writes no refs. Not here:
the rules (``policy``) and what is started (``planning``).
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from workbench.domain import push as rules
from workbench.domain.errors import NotFound, Refused, ToolMissing, UserError, WorkbenchError
from workbench.domain.ids import ulid
from workbench.domain.push import Push
from workbench.domain.run import FINAL
from workbench.hub import runs
from workbench.hub.context import Hub, PushedRepository
from workbench.hub.intents import Intent
from workbench.hub.planning import Derivation, Job, describe, started_by
from workbench.hub.policy import CleanTrees, Judged, judge
from workbench.hub.tiers import load_tier
from workbench.hub.wire import Answer, Request, read_request
from workbench.hub.worker import pending_pushes, poke, worker_is_alive
from workbench.pipeline import watch
from workbench.ports.store import Objects

IDLE_S = 900.0
LOOK_AGAIN_S = (1.0, 5.0, 20.0)  # after an accepted push: its post-receive may have been killed


@dataclass
class PolicyServer:
    hub: Hub
    idle_s: float = IDLE_S
    _clean: CleanTrees = field(default_factory=CleanTrees)
    _judging: threading.Lock = field(default_factory=threading.Lock)
    _looks: list[float] = field(default_factory=list)
    _open: int = 0

    def __post_init__(self) -> None:
        self._derivation = Derivation(self.hub.specs)

    def serve(self) -> bool:
        """Answer until idle; False when another process is the hub's policy already."""
        layout = self.hub.layout
        layout.create()
        os.chdir(layout.git_dir)  # a socket's path has at most 107 bytes, so it is named from here
        with open(layout.policy_lock, "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            lock.truncate(0)
            lock.write(b"%d\n" % os.getpid())
            lock.flush()
            if not layout.wake.exists():
                os.mkfifo(layout.wake, 0o600)
            name = str(layout.socket.relative_to(layout.git_dir))
            layout.socket.unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(name)
                listener.listen(64)
                self._looks.append(time.monotonic())
                self._serve_until_idle(listener)
                layout.socket.unlink(missing_ok=True)
                listener.setblocking(False)
                self._last_guests(listener)
            return True

    def _serve_until_idle(self, listener: socket.socket) -> None:
        wake = os.open(self.hub.layout.wake, os.O_RDWR | os.O_NONBLOCK)
        last = time.monotonic()
        while True:
            now = time.monotonic()
            due = [look for look in self._looks if look <= now]
            if due:
                self._looks = [look for look in self._looks if look > now]
                self._ensure_worker()
            waits = min([self.idle_s, *(look - now for look in self._looks)])
            ready = select.select([listener.fileno(), wake], [], [], max(0.0, waits))[0]
            if wake in ready:
                os.read(wake, 65536)
                self._ensure_worker()
            if listener.fileno() in ready:
                self._take(listener.accept()[0])
            if ready:
                last = time.monotonic()
            elif not self._open and not self._looks and time.monotonic() - last >= self.idle_s:
                os.close(wake)
                return

    def _last_guests(self, listener: socket.socket) -> None:
        """Those who connected while the socket was being removed."""
        while True:
            try:
                connection = listener.accept()[0]
            except BlockingIOError:
                break
            connection.setblocking(True)
            self._take(connection)
        while self._open:
            time.sleep(0.01)

    def _take(self, connection: socket.socket) -> None:
        self._open += 1
        threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        answer = Answer(connection)
        accepted = False
        try:
            request = read_request(connection)
            if request.verb == "pre-receive":
                accepted = self._pre_receive(request, answer)
            elif request.verb == "post-receive":
                answer.say(self._message(request.receiver))
                self._ensure_worker()
                accepted = True
            elif request.verb == "wait":
                self._wait(request, answer)
                accepted = True
            else:
                raise Refused(f"unknown verb {request.verb!r}", "stamp the hooks again: `workbench init`")
        except WorkbenchError as error:
            answer.say(f"workbench: refused: {_one_line(error)}\n")
        except Exception:  # noqa: BLE001  (the edge: a bug refuses the push and is logged)
            traceback.print_exc()
            sys.stderr.flush()
            answer.say(f"workbench: refused: the policy failed; see {self.hub.layout.log.name} in the hub\n")
        finally:
            answer.end(accepted)
            self._open -= 1

    # --- pre-receive -------------------------------------------------------------------------------------------------

    def _pre_receive(self, request: Request, answer: Answer) -> bool:
        options = rules.parse_options(request.options, self._stage_names())
        push = Push(rules.parse_updates(request.stdin.splitlines()), options, request.pusher)
        objects = self.hub.open_objects(self._quarantine(request))
        with self._judging:
            judged = judge(push, objects, self.hub.repository.refs, self._clean)
            started = started_by(objects.view, push.moves, judged.main, judged.changed)
            jobs = self._derivation.jobs(objects.view, started, options)
            self._check_definitions(objects.view, judged)
            lines = self._plan_lines(objects.view, jobs)
        if options.promote and not jobs:
            raise Refused("promote has no effect: this push starts no run", "add -o ci.tier=micro")
        if options.dry:
            answer.say("".join(f"{line}\n" for line in ["workbench: dry run: nothing was changed", *lines]))
            return False
        self._leave_message(request, judged, jobs, lines)
        return True

    def _stage_names(self) -> tuple[str, ...]:
        return self._derivation.stage_names

    def _quarantine(self, request: Request) -> list[Path]:
        if not request.quarantine:
            return []
        folder = Path(request.quarantine).resolve()
        if folder.parent != (self.hub.layout.git_dir / "objects").resolve():
            raise Refused("the quarantine is not inside this hub", "push through git-receive-pack")
        return [folder]

    def _check_definitions(self, view: Objects, judged: Judged) -> None:
        if judged.main is not None and "ci/tiers.toml" in judged.changed:
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

    def _leave_message(self, request: Request, judged: Judged, jobs: tuple[Job, ...], lines: list[str]) -> None:
        push, options = judged.push, judged.push.options
        run = self.hub.clock.ulid()
        if jobs or options.to_json():
            self.hub.intents.add(Intent(run, push.moves, options, push.pusher, self.hub.clock.now_ms(), tuple(lines)))
        said = ["workbench: nothing to run" + (" (-o ci.skip)" if options.skip else "")]
        if jobs:
            said = [f"workbench: run {run}", *lines, f"follow: workbench runs tail {run}"]
        first = f"{run} {options.wait_s}" if options.wait and jobs else ""
        path = self.hub.layout.messages / str(request.receiver)
        path.write_text("\n".join([first, *said]) + "\n", encoding="utf-8", errors="backslashreplace")
        now = time.monotonic()
        self._looks = sorted([*self._looks, *(now + after for after in LOOK_AGAIN_S)])[-100:]

    def _message(self, receiver: int) -> str:
        path = self.hub.layout.messages / str(receiver)
        return path.read_text(encoding="utf-8").partition("\n")[2] if path.is_file() else ""

    # --- after the push ----------------------------------------------------------------------------------------------

    def _ensure_worker(self) -> None:
        for message in self.hub.layout.messages.iterdir():
            if message.name.isdigit() and not Path("/proc", message.name).exists():
                message.unlink(missing_ok=True)
        try:
            if worker_is_alive(self.hub):
                poke(self.hub.layout.worker_wake)
            elif pending_pushes(self.hub):
                self.hub.start_worker()
        except (WorkbenchError, OSError) as error:
            print(f"policy: {error}", file=sys.stderr, flush=True)

    def _wait(self, request: Request, answer: Answer) -> None:
        """Stream the progress of a run until it ends, the seconds are over or the pusher has gone."""
        words = (request.options[0] if request.options else "").split()
        if not words:
            raise UserError("which run?", "give its id")
        run, seconds = ulid(words[0]), float(words[1]) if len(words) > 1 else 0.0
        self._ensure_worker()
        deadline = time.monotonic() + (seconds or rules.MAX_WAIT_S)

        def is_over() -> bool:
            return answer.gone or time.monotonic() > deadline

        plain = watch.PlainWatcher(_Out(answer), self.hub.clock.now_ms)  # type: ignore[arg-type]
        while not is_over():
            for event in runs.tail_run(self.hub.repository, run, follow=True, is_stopped=is_over):
                plain.on(event)
                if isinstance(event, watch.RunEnded) and event.run == run:
                    return
            if runs.show_run(self.hub.repository, run).state in FINAL:
                return
            self._ensure_worker()
        answer.say(f"still running; follow: workbench runs tail {run}\n")


@dataclass(frozen=True)
class _Out:
    answer: Answer

    def write(self, text: str) -> None:
        self.answer.say(text)

    def flush(self) -> None:
        return


def _one_line(error: WorkbenchError) -> str:
    what, hint = (" ".join(text.split()) for text in (error.what, error.hint))
    return f"{what}: {hint}" if hint else what
