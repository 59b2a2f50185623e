"""A change killed at each of its steps, and then a push of one ref by a process that was there all the time: what the
ledger says of a ref is what became of it, and what the pusher was told is true."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from workbench.domain.errors import Conflict
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.store.git.ledger import LedgerLog
from workbench.store.git.objects import ObjectStore
from workbench.store.git.repository import GitRepository
from workbench.store.memory.repository import MemoryDatabase, MemoryRefs, MemoryTurn

MAIN, ACTIVE, LEDGER = "refs/heads/main", "refs/workbench/channels/active", "refs/workbench/ledger"

# Killed before or after the step of this number: prepare the refs, prepare the ledger, move it, move the refs.
STEPS = ("prepare 1", "prepare 2", "commit 1", "commit 2")
_PIN = """
import os, signal, sys
from pathlib import Path
from workbench.domain.ledger import Action, RefMove
from workbench.store.git.refs import Updater
from workbench.store.git.repository import GitRepository
hub, step, when, old, new = sys.argv[1:]
counted = {"prepare": 0, "commit": 0}
def killed(name, real):
    def call(self, *given):
        counted[name] += 1
        here = step == f"{name} {counted[name]}"
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, *given)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
    return call
for name in counted:
    setattr(Updater, name, killed(name, getattr(Updater, name)))
with GitRepository(Path(hub)) as repository:
    moves = [RefMove.named("refs/heads/main", old, new), RefMove.named("refs/workbench/channels/active", old, new)]
    repository.ledger.change(Action.PIN, moves, who="a", why="cut off")
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_push_after_a_pin_that_was_killed_finds_it_made_or_not_made(git_repository, commits, fill, step, when):
    one, two, three = commits(git_repository, 3)
    fill(git_repository, [one])
    killed = subprocess.run([sys.executable, "-c", _PIN, str(git_repository.path), step, when, one, two])
    assert killed.returncode == -9
    is_recorded = git_repository.refs.get(LEDGER) != git_repository.ledger.history()[-1].commit
    assert is_recorded == ((step, when) in {("commit 1", "after"), ("commit 2", "before"), ("commit 2", "after")})
    if is_recorded:
        with pytest.raises(Conflict) as told:
            git_repository.ledger.change(Action.PUSH, [RefMove.named(MAIN, one, three)], who="a", why="push")
        assert told.value.current == two
        assert git_repository.refs.get(ACTIVE) == two
        git_repository.ledger.change(
            Action.PUSH, [RefMove.named(MAIN, two, three)], who="a", why="push"
        )  # as after a fetch
    else:
        git_repository.ledger.change(Action.PUSH, [RefMove.named(MAIN, one, three)], who="a", why="push")
        assert git_repository.refs.get(ACTIVE) == one
    with GitRepository(git_repository.path) as opened:
        assert opened.ledger.recover() == []
        assert opened.refs.get(MAIN) == three


# --- any history ------------------------------------------------------------------------------------------------------


class _KilledError(BaseException):
    """Our process ends here."""


class _MortalRefs(MemoryRefs):
    """Counts the steps of a change down: prepared, ledger prepared, ledger moved, refs moved."""

    steps_left = 100

    def _step(self) -> None:
        self.steps_left -= 1
        if self.steps_left < 0:
            raise _KilledError

    @contextmanager
    def prepared(self, moves, *, patience_s: float = 0.0) -> Iterator[_MortalRefs._Mortal]:
        self._step()
        with super().prepared(moves) as transaction:
            yield self._Mortal(self, transaction)

    class _Mortal:
        def __init__(self, refs, transaction) -> None:
            self._refs, self._transaction = refs, transaction

        def commit(self) -> None:
            self._refs._step()
            self._transaction.commit()


class CutOff(RuleBasedStateMachine):
    """Changes that may be killed, pushes of one ref and openings, in any order, against a plain dictionary."""

    names = st.sampled_from([MAIN, ACTIVE, "refs/heads/topic"])

    @initialize()
    def begin(self) -> None:
        self.objects = ObjectStore(MemoryDatabase())
        self.refs = _MortalRefs(self.objects)
        self.ledger = LedgerLog(self.objects, self.refs, MemoryTurn(), lambda: 0)
        self.expected: dict[str, ObjectId] = {}
        self.num_made = 0

    def fresh(self) -> ObjectId:
        self.num_made += 1
        tree = self.objects.add_tree(None, {})
        return self.objects.add_commit(tree, parents=[], message=str(self.num_made), who="a", time_ms=0)

    @rule(names=st.sets(names, min_size=1), steps=st.sampled_from([1, 2, 3, 4, 5, 100]))
    def change(self, names: set[str], steps: int) -> None:
        moves = [RefMove.named(name, self.expected.get(name, ZERO_ID), self.fresh()) for name in sorted(names)]
        before = self.refs.get(LEDGER)
        self.refs.steps_left = steps
        with suppress(_KilledError):
            self.ledger.change(Action.PIN, moves, who="a", why="")
        self.refs.steps_left = 100
        if self.refs.get(LEDGER) != before:
            self.expected |= {str(move.ref): move.new for move in moves}

    @rule(name=names)
    def push(self, name: str) -> None:
        """By someone who sees the ref as it stands: told a conflict exactly where the ledger says otherwise."""
        seen, new = self.refs.get(name) or ZERO_ID, self.fresh()
        move, stands = RefMove.named(name, seen, new), self.expected.get(name, ZERO_ID)
        if seen == stands:
            self.ledger.change(Action.PUSH, [move], who="a", why="push")
            self.expected[name] = new
        else:
            with pytest.raises(Conflict) as told:
                self.ledger.change(Action.PUSH, [move], who="a", why="push")
            assert told.value.current == stands

    @rule()
    def open(self) -> None:
        self.ledger.recover()
        assert {ref: id for ref, id in self.refs.all().items() if ref != LEDGER} == self.expected

    @invariant()
    def a_ref_that_is_behind_is_told(self) -> None:
        behind = [ref for ref, id in self.expected.items() if self.refs.get(ref) != id]
        assert not behind or self.ledger.needs_recovery()


CutOff.TestCase.settings = settings(max_examples=100, stateful_step_count=20)
TestCutOff = CutOff.TestCase
