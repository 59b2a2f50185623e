"""Random pushes, kills and moves beside us: the work of every accepted push is run exactly once, or recorded as failed,
in the order of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.domain.push import PushOptions
from workbench.domain.refs import MAIN
from workbench.domain.run import FINAL, RunRecord, State
from workbench.hub import beside, runs
from workbench.hub.context import Hub
from workbench.hub.push_run import PushRun
from workbench.hub.queue import fold, waiting
from workbench.hub.worker import MAX_TRIES, Worker
from workbench.store.git.quarantine import QuarantinedObjects
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub

WHO = "Ann <ann@localhost>"
STEPS = st.lists(
    st.sampled_from(["push", "push", "skip", "quiet", "beside", "pin", "back", "work", "killed", "wrong", "forget"]),
    max_size=14,
)


class Killed(BaseException):
    """The process ends here."""


class World:
    """A hub without sandbox or pipelines: what a run does is written down here."""

    def __init__(self, folder: Path) -> None:
        init_hub(folder)
        self.repository = GitRepository(folder)
        self.hub = Hub(
            repository=self.repository,
            open_objects=lambda quarantine: QuarantinedObjects(folder, quarantine),
            specs=(),
            clock=self.repository._clock,
            sandbox=lambda: None,  # type: ignore[arg-type, return-value]
            start_worker=lambda: None,
        )
        self.hub.layout.create()
        self.number = 0
        self.told: list[str] = []  # runs of accepted pushes, in order
        self.ran: list[str] = []
        self.besides: dict[str, bool] = {}  # commits that came beside us: whether they are to be run
        self.is_back = False  # main was put back beside us, which is against the rules: what follows is, too
        self.is_seen = True  # whether the ledger, or the worker, has come by since the last move beside us
        self.dies = self.fails = ""

    @property
    def main(self) -> ObjectId:
        return self.repository.refs.get(str(MAIN)) or ZERO_ID

    def commit(self, path: str = "agents/a.py") -> ObjectId:
        self.number += 1
        base = self.repository.objects.commit(self.main).tree if self.main != ZERO_ID else None
        tree = self.repository.objects.add_tree(base, {path: f"x = {self.number}\n".encode()})
        parents = [self.main] if self.main != ZERO_ID else []
        return self.repository.objects.add_commit(
            tree, parents=parents, message=f"{self.number}", who=WHO, time_ms=self.number
        )

    def push(self, *, work: bool = True, **options: Any) -> None:
        """As the policy process records it."""
        evidence: dict[str, Any] = {"pusher": "owner", "options": PushOptions(**options).to_json()}
        new = self.commit("agents/a.py" if work else "README")
        if work and not options:
            evidence["run"] = self.hub.clock.ulid()
            self.told.append(evidence["run"])
            if self.number % 2:  # else the worker decides
                evidence["work"] = [{"kind": "tier", "subject": "micro", "source": new, "why": "agents/ changed"}]
        self.entry(Action.PUSH, new, evidence)

    def entry(self, action: Action, new: ObjectId, evidence: dict[str, Any]) -> None:
        move = RefMove(MAIN, self.main, new)
        self.repository.ledger.change(action, [move], who=WHO, why="", evidence=evidence)
        self.is_back, self.is_seen = False, True

    def step(self, name: str) -> None:
        match name:
            case "push":
                self.push()
            case "skip":
                self.push(skip=True)
            case "quiet":
                self.push(work=False)
            case "beside":
                if not self.is_seen:  # then it stands for the one before, too
                    self.besides[self.main] = False
                new = self.commit()
                self.repository.refs.swap([RefMove(MAIN, self.main, new)])
                self.besides[new], self.is_seen = not self.is_back, False
            case "back" if self.main != ZERO_ID and (parents := self.repository.objects.commit(self.main).parents):
                stood = fold(self.repository).stands.get(str(MAIN), ZERO_ID)
                if stood == self.main:  # else what came beside us is gone before anybody saw it
                    self.repository.refs.swap([RefMove(MAIN, self.main, parents[0])])
                    self.is_back, self.is_seen = True, True
            case "pin" if self.main != ZERO_ID:
                self.entry(Action.PIN, self.commit("state/active.state.json"), {})
            case "work":
                self.work()
            case "killed" | "wrong":
                setattr(self, "dies" if name == "killed" else "fails", "next")
                self.work()
            case "forget":
                self.hub.layout.fold.unlink(missing_ok=True)

    def work(self) -> None:
        worker, self.is_seen = Worker(self.hub), True
        try:
            for _ in range(MAX_TRIES):
                worker.handle_all()
        except Killed:
            pass

    def run(self, run: str, work: Sequence[Any], trigger: str) -> RunRecord:
        """In the place of ``PushRun.run``."""
        data = self.repository.runs.read(run, "run.json")  # type: ignore[arg-type]
        if data is not None and (kept := RunRecord.from_bytes(data)).state in FINAL:
            return kept
        if self.fails in ("next", run):
            self.fails = run
            raise RuntimeError("a bug of ours")
        self.ran.append(run)
        record = RunRecord(run, "push", "toy", work[0].source if work else "", trigger, state=State.SUCCEEDED)  # type: ignore[arg-type]
        self.repository.runs.write(record.id, {"run.json": record.to_bytes()})
        if self.dies == "next":  # its work is done, and nobody has written that down
            self.dies = ""
            raise Killed
        return record


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("queues")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(STEPS)
def test_the_work_of_every_accepted_push_is_run_once_or_recorded_as_failed_and_in_order(
    folders: Path, steps: list[str]
) -> None:
    world = World(folders / f"{len(list(folders.iterdir()))}.git")
    with world.repository, pytest.MonkeyPatch.context() as patch:
        patch.setattr(PushRun, "run", lambda self, *arguments: world.run(*arguments))
        for step in ["push", *steps]:
            world.step(step)
        world.dies = ""
        world.work()
        world.work()
        assert waiting(world.repository) == []
        found = {run: runs.show_run(world.repository, run) for run in world.repository.runs.list()}
        assert all(record.state in FINAL for record in found.values())
        ended = [run for run in world.ran if run in world.told]
        failed = [run for run in world.told if found[run].state is State.FAILED]
        assert sorted(ended + failed) == sorted(world.told), "each of them, and none of them twice"
        assert ended == [run for run in world.told if run not in failed], "in order"
        assert len(world.ran) == len(set(world.ran))
        sources = [record.source for record in found.values()]
        for commit, is_run in world.besides.items():  # of several in a row the last one stands for all
            assert sources.count(commit) == is_run
        stands = fold(world.repository).stands.get(str(MAIN), ZERO_ID)
        assert stands == world.main or beside.look(world.hub)[0].why, "what is not recorded breaks a rule"
