"""The queue is a function of refs, ledger and intents: nothing pushed is lost or done twice, whatever is forgotten."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.domain.errors import Refused, UserError
from workbench.domain.ids import ZERO_ID, ObjectId, make_ulid
from workbench.domain.ledger import Action, Entry, RefMove
from workbench.domain.push import PushOptions
from workbench.domain.refs import MAIN
from workbench.hub.handled import Handled, HandledIndex
from workbench.hub.intents import Intent
from workbench.hub.planning import check_effect
from workbench.hub.queue import PendingPush, pending
from workbench.store.memory.repository import CountingClock, MemoryRepository

WHO = "Test <test@localhost>"
NAME = str(MAIN)
A, B, C, D, P, X = (ObjectId(letter * 40) for letter in "abcdef")
TAG = "refs/tags/v1.0.0"
HISTORY = (A, B, C, D)  # of main, where a test draws no other


def came_before(old: ObjectId, new: ObjectId) -> bool:
    """Over ``HISTORY``; P and X stand beside it."""
    return old == new or (old in HISTORY and new in HISTORY and HISTORY.index(old) < HISTORY.index(new))


def intent(number: int, *moves: tuple[str, ObjectId, ObjectId], **options: object) -> Intent:
    run = make_ulid(number, bytes(10))
    return Intent(run, tuple(RefMove.named(*m) for m in moves), PushOptions(**options), "alice", number)  # type: ignore[arg-type]


def main(old: ObjectId, new: ObjectId) -> tuple[str, ObjectId, ObjectId]:
    return (NAME, old, new)


def told(pushes: tuple[PendingPush, ...]) -> list[tuple[int, list[tuple[ObjectId, ObjectId]]]]:
    return [(p.intent.time_ms if p.intent else -1, [(m.old, m.new) for m in p.moves]) for p in pushes]


# --- pending, case by case --------------------------------------------------------------------------------------------


def test_nothing_is_pending_where_the_refs_stand_where_they_were_handled() -> None:
    handled = Handled({NAME: B, TAG: C})
    assert pending({NAME: B, TAG: C}, handled, [intent(1, main(A, B))], came_before) == ()


def test_pushes_are_pending_in_the_order_in_which_they_happened() -> None:
    intents = [intent(1, main(ZERO_ID, A)), intent(2, main(A, B)), intent(3, (TAG, ZERO_ID, C)), intent(4, main(B, D))]
    found = pending({NAME: D, TAG: C}, Handled(), intents, came_before)
    assert told(found) == [(1, [(ZERO_ID, A)]), (2, [(A, B)]), (3, [(ZERO_ID, C)]), (4, [(B, D)])]


def test_the_chain_is_the_order_even_where_the_clock_went_back() -> None:
    intents = [intent(1, main(B, C)), intent(2, main(A, B))]
    assert told(pending({NAME: C}, Handled({NAME: A}), intents, came_before)) == [(2, [(A, B)]), (1, [(B, C)])]


def test_a_push_that_nobody_described_is_pending_too() -> None:
    found = pending({NAME: B, TAG: C}, Handled(), [], came_before)
    assert [(p.intent, {str(m.ref) for m in p.moves}) for p in found] == [(None, {NAME, TAG})]


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([1, 2, 3], [(1, [(A, B)]), (2, [(B, C)]), (3, [(C, D)])]),
        ([2, 3], [(-1, [(A, B)]), (2, [(B, C)]), (3, [(C, D)])]),
        ([1, 3], [(1, [(A, B)]), (-1, [(B, C)]), (3, [(C, D)])]),
        ([1, 2], [(1, [(A, B)]), (2, [(B, C)]), (-1, [(C, D)])]),
        ([2], [(-1, [(A, B)]), (2, [(B, C)]), (-1, [(C, D)])]),
        ([], [(-1, [(A, D)])]),
    ],
)
def test_a_lost_intent_costs_no_other_push_its_run(kept: list[int], expected: list[object]) -> None:
    every = {1: intent(1, main(A, B)), 2: intent(2, main(B, C)), 3: intent(3, main(C, D))}
    found = pending({NAME: D}, Handled({NAME: A}), [every[number] for number in kept], came_before)
    assert told(found) == expected


def test_an_intent_of_a_push_that_did_not_happen_is_passed_over() -> None:
    ghost, real = intent(1, main(A, X)), intent(2, main(A, B))
    assert told(pending({NAME: B}, Handled({NAME: A}), [ghost, real], came_before)) == [(2, [(A, B)])]
    assert told(pending({NAME: C}, Handled({NAME: A}), [ghost, real], came_before)) == [(2, [(A, B)]), (-1, [(B, C)])]


def test_a_push_that_was_cut_off_and_repeated_runs_once_as_the_one_that_happened() -> None:
    ghost, real = intent(1, main(A, B), force=True), intent(2, main(A, B))
    assert told(pending({NAME: B}, Handled({NAME: A}), [ghost, real], came_before)) == [(2, [(A, B)])]
    assert told(pending({NAME: C}, Handled({NAME: A}), [ghost, real], came_before)) == [(2, [(A, B)]), (-1, [(B, C)])]


def test_moves_of_the_ledger_start_nothing_and_join_the_pushes_around_them() -> None:
    handled = Handled({NAME: A}, edges=[RefMove.named(NAME, B, C)])
    found = pending({NAME: D}, handled, [intent(1, main(A, B)), intent(2, main(C, D))], came_before)
    assert told(found) == [(1, [(A, B)]), (2, [(C, D)])]
    found = pending({NAME: D}, handled, [intent(1, main(A, B))], came_before)
    assert told(found) == [(1, [(A, B)]), (-1, [(C, D)])]


def test_a_pin_and_its_undo_are_a_circle_that_starts_nothing() -> None:
    handled = Handled({NAME: A}, edges=[RefMove.named(NAME, B, P), RefMove.named(NAME, P, B)])
    assert told(pending({NAME: B}, handled, [intent(1, main(A, B))], came_before)) == [(1, [(A, B)])]
    assert told(pending({NAME: B}, handled, [], came_before)) == [(-1, [(A, B)])]
    found = pending({NAME: C}, handled, [intent(1, main(A, B)), intent(2, main(B, C))], came_before)
    assert told(found) == [(1, [(A, B)]), (2, [(B, C)])]
    found = pending({NAME: C}, handled, [intent(1, main(A, B))], came_before)
    assert told(found) == [(1, [(A, B)]), (-1, [(B, C)])]


def test_a_tier_runs_on_each_commit_of_a_branch_for_which_it_was_asked() -> None:
    branch = "refs/heads/topic"
    intents = [
        intent(1, (branch, ZERO_ID, A), tier="micro"),
        intent(2, (branch, A, B)),
        intent(3, (branch, B, C), tier="fast"),
        intent(4, (branch, C, D)),
    ]
    expected = [(1, [(ZERO_ID, A)]), (3, [(B, C)])]
    assert told(pending({branch: D}, Handled(), intents, came_before)) == expected
    assert told(pending({branch: D}, Handled({branch: A}), intents, came_before)) == expected[1:]
    assert told(pending({branch: D}, Handled({branch: C}), intents, came_before)) == []
    assert told(pending({branch: X}, Handled(), intents, came_before)) == [], "the branch does not hold them"
    assert told(pending({}, Handled(), intents, came_before)) == [], "the branch is gone"


EVERY_REF = (NAME, TAG, "refs/heads/topic", "refs/notes/evals", "refs/tags/raw/books/v1.0.0")
ASKING: list[dict[str, object]] = [
    {"tier": "fast"},
    {"stages": ("words",)},
    {"force": True},
    {"tier": "micro", "force": True},
]


@given(st.sets(st.sampled_from(EVERY_REF), min_size=1), st.sampled_from(ASKING))
def test_what_a_push_may_ask_for_is_found_once_its_refs_have_moved(names: set[str], asked: dict[str, object]) -> None:
    described = intent(1, *((name, A if name == NAME else ZERO_ID, B) for name in sorted(names)), **asked)
    try:
        check_effect(described.moves, described.options)
    except Refused:
        assert not names & {NAME, TAG}
        assert "force" in asked or "stages" in asked or "refs/heads/topic" not in names
        return
    current = {NAME: A, **{str(move.ref): move.new for move in described.moves}}
    [push] = pending(current, Handled({NAME: A}), [described], came_before)
    assert push.intent == described


def test_names_that_are_not_of_the_grammar_are_passed_over() -> None:
    odd = intent(1, ("refs/heads/a..b", ZERO_ID, A), ("nonsense", ZERO_ID, A), tier="micro")
    current = {"refs/heads/a..b": A, "nonsense": A, "refs/tags/vague": B, "refs/tags/v1": C}
    assert pending(current, Handled(), [odd], came_before) == ()


# --- any history at all -----------------------------------------------------------------------------------------------


@dataclass
class World:
    """A hub's refs and ledger in memory, and everything that truly happened."""

    repository: MemoryRepository
    parents: dict[ObjectId, ObjectId] = field(default_factory=dict)
    intents: list[Intent] = field(default_factory=list)
    told: list[tuple[int, RefMove]] = field(default_factory=list)  # described moves that happened: number, move
    untold: list[RefMove] = field(default_factory=list)
    done: set[RefMove] = field(default_factory=set)
    pins: list[int] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    @classmethod
    def new(cls) -> World:
        return cls(MemoryRepository(clock=CountingClock()))

    @property
    def main(self) -> ObjectId:
        return self.repository.refs.get(NAME) or ZERO_ID

    def commit(self, parent: ObjectId) -> ObjectId:
        objects = self.repository.objects
        made = objects.add_commit(
            objects.add_tree(None, {"f": b"%d" % next(self.numbers)}), parents=[], message="m", who=WHO, time_ms=1
        )
        self.parents[made] = parent
        return made

    def came_before(self, old: ObjectId, new: ObjectId) -> bool:
        at = new
        while at != old and at in self.parents:
            at = self.parents[at]
        return at == old

    def push(self, moves: list[RefMove], describe: bool, **options: object) -> None:
        number = next(self.numbers)
        if describe:
            self.intents.append(intent(number, *[(str(m.ref), m.old, m.new) for m in moves], **options))
            self.told += [(number, move) for move in moves]
        else:
            self.untold += moves
        if len(moves) == 1:
            self.repository.refs.swap(moves)
        else:
            self.repository.ledger.change(Action.PUSH, moves, who=WHO, why="push")

    def tag(self) -> RefMove:
        return RefMove.named(f"refs/tags/v1.0.{next(self.numbers)}", ZERO_ID, self.commit(ZERO_ID))

    def push_main(self, describe: bool) -> None:
        self.push([RefMove.named(NAME, self.main, self.commit(self.main))], describe)

    def push_tag(self, describe: bool) -> None:
        self.push([self.tag()], describe)

    def push_both(self, describe: bool) -> None:
        self.push([RefMove.named(NAME, self.main, self.commit(self.main)), self.tag()], describe)

    def push_branch(self, describe: bool) -> None:
        ref = "refs/heads/topic"
        old = self.repository.refs.get(ref) or ZERO_ID
        if describe:
            self.push([RefMove.named(ref, old, self.commit(old))], True, tier="micro")
        else:
            self.repository.refs.swap([RefMove.named(ref, old, self.commit(old))])

    def fail(self, repeat: bool) -> None:
        """A push that was cut off before anything moved; it may be repeated."""
        move = RefMove.named(NAME, self.main, self.commit(self.main))
        self.intents.append(intent(next(self.numbers), (str(move.ref), move.old, move.new)))
        if repeat:
            self.push([move], True)

    def pin(self, undo: bool) -> None:
        moves = [RefMove.named(NAME, self.main, self.commit(self.main)), self.tag()]
        self.pins.append(self.repository.ledger.change(Action.PIN, moves, who=WHO, why="pin").counter)
        if undo:
            self.undo(True)

    def undo(self, latest: bool) -> None:
        """Possible while nobody has pushed on top of the pin."""
        if self.pins:
            try:
                self.repository.ledger.undo(self.pins[-1 if latest else 0], who=WHO)
                self.pins.pop(-1 if latest else 0)
            except UserError:
                return

    def handled(self) -> Handled:
        fold = Handled()
        for entry in reversed(self.repository.ledger.history(10_000)):
            fold.apply(entry)
        return fold

    def pending(self) -> tuple[PendingPush, ...]:
        return pending(self.repository.refs.all(), self.handled(), self.intents, self.came_before)

    def handle(self, forget: bool) -> None:
        """Deal with the oldest pending push, as the worker does; it may die before it forgets the intent."""
        for push in self.pending()[:1]:
            self.done |= self.meant_by(push)
            evidence = {"refs": {str(move.ref): move.new for move in push.moves}}
            self.repository.ledger.change(Action.HANDLED, (), who=WHO, why="handled", evidence=evidence)
            if forget and push.intent:
                self.intents.remove(push.intent)

    def meant_by(self, push: PendingPush) -> set[RefMove]:
        """The true moves that a pending push stands for: its own, or all that lie in its gap."""
        if push.intent:
            return set(push.moves)
        return {
            true
            for true in self.untold
            for move in push.moves
            if true == move
            or (
                str(true.ref) == str(move.ref) == NAME
                and self.came_before(true.new, move.new)
                and not (move.old != ZERO_ID and self.came_before(true.new, move.old))
            )
        }


@pytest.mark.parametrize("first", [True, False], ids=["before it was handled", "after it was handled"])
def test_a_push_that_was_undone_runs_once_when_it_is_pushed_again(first: bool) -> None:
    world = World.new()
    world.push_main(True)
    world.handle(True)
    move, tag = RefMove.named(NAME, world.main, world.commit(world.main)), world.tag()
    world.push([move, tag], True)
    entry = world.repository.ledger.head()
    assert entry is not None
    if not first:
        world.handle(True)
    world.repository.ledger.undo(entry.counter, who=WHO)
    assert [push.moves for push in world.pending()] == ([(tag,)] if first else [])
    world.handle(True)
    world.push([move], True)
    assert [push.moves for push in world.pending()] == [(move,)]
    world.handle(True)
    assert world.pending() == ()


OPERATIONS = ("push_main", "push_tag", "push_both", "push_branch", "fail", "pin", "undo", "handle")
STEPS = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.booleans()), max_size=14)


def play(steps: list[tuple[str, bool]]) -> World:
    world = World.new()
    for name, flag in steps:
        getattr(world, name)(flag)
    return world


@settings(max_examples=150)
@given(STEPS)
def test_every_push_that_is_not_handled_is_pending_once_and_in_order(steps: list[tuple[str, bool]]) -> None:
    world = play(steps)
    pushes = world.pending()
    described = [(push.intent.time_ms, move) for push in pushes if push.intent for move in push.moves]
    expected = [(number, move) for number, move in world.told if move not in world.done]
    assert described == [(n, m) for n, m in sorted(expected, key=lambda pair: (pair[0], str(pair[1].ref)))]
    meant = [move for push in pushes for move in world.meant_by(push)]
    assert len(meant) == len(set(meant)), "none twice"
    assert set(meant) == {move for _, move in expected} | {m for m in world.untold if m not in world.done}


@settings(max_examples=150)
@given(STEPS)
def test_dealing_with_the_first_push_leaves_the_others(steps: list[tuple[str, bool]]) -> None:
    world = play(steps)
    for _ in range(len(steps) + 1):
        before = world.pending()
        world.handle(forget=False)
        assert world.pending() == before[1:]
    assert world.pending() == ()


# --- the fold of the ledger -------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(steps=STEPS, reads=st.sets(st.integers(0, 14)))
def test_a_fold_that_goes_on_equals_one_from_the_beginning(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bool]], reads: set[int]
) -> None:
    world = World.new()
    index = HandledIndex(world.repository.ledger, tmp_path_factory.mktemp("fold") / "handled.json")
    for number, (name, flag) in enumerate(steps):
        getattr(world, name)(flag)
        if number in reads:
            index.read()
    assert index.read() == world.handled()
    assert index.read() == world.handled(), "read again, from the file alone"


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 200_000,
    b'{"format": 2}',
    b'{"format": 1}',
    b'{"format": 1, "refs": [], "edges": [], "counter": 1, "commit": "%s"}' % (b"a" * 40),
    b'{"format": 1, "refs": {}, "edges": {}, "counter": "1", "commit": "%s"}' % (b"a" * 40),
    b'{"format": 1, "refs": {}, "edges": [], "counter": -5, "commit": "%s"}' % (b"a" * 40),
    b'{"format": 1, "refs": {}, "edges": [], "counter": 99999, "commit": "%s"}' % (b"a" * 40),
    b'{"format": 1, "refs": {}, "edges": [], "counter": 1.5, "commit": "%s"}' % (b"a" * 40),
    b'{"format": 1, "refs": {"refs/heads/main": 7}, "edges": [], "counter": 1, "commit": "%s"}' % (b"a" * 40),
    b'{"format": 1, "refs": {}, "edges": [[1, 2, 3]], "counter": 1, "commit": "%s"}' % (b"a" * 40),
    b'{"format": 1, "refs": {}, "edges": [["a"]], "counter": 1, "commit": 7}',
]


@pytest.mark.parametrize("data", GARBAGE)
def test_an_index_that_is_garbage_is_rebuilt(tmp_path: Path, data: bytes) -> None:
    world = play([("push_main", True), ("pin", False), ("push_both", False), ("handle", True), ("handle", True)])
    path = tmp_path / "handled.json"
    path.write_bytes(data)
    assert HandledIndex(world.repository.ledger, path).read() == world.handled()
    assert json.loads(path.read_bytes())["commit"] == world.handled().commit


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(["refs", "edges", "counter", "commit", "format"]),
)
def test_an_index_with_any_wrong_field_is_rebuilt(
    tmp_path_factory: pytest.TempPathFactory, value: object, name: str
) -> None:
    world = play([("push_main", True), ("handle", True), ("pin", False)])
    path = tmp_path_factory.mktemp("index") / "handled.json"
    index = HandledIndex(world.repository.ledger, path)
    index.read()
    kept = json.loads(path.read_bytes())
    world.push_main(True)
    world.handle(forget=True)
    if name in ("refs", "edges") and not value:
        value = 7  # an empty table of the right kind cannot be told from a true one
    path.write_text(json.dumps({**kept, name: value}))
    if name == "counter" and isinstance(value, int) and value == kept["counter"]:
        return
    assert index.read() == world.handled()


def test_an_index_of_another_ledger_is_rebuilt(tmp_path: Path) -> None:
    path = tmp_path / "handled.json"
    long = play([("push_main", True), ("handle", True)] * 5)
    HandledIndex(long.repository.ledger, path).read()
    short = play([("push_both", True), ("handle", True)])
    assert HandledIndex(short.repository.ledger, path).read() == short.handled()


def test_a_fold_of_an_empty_ledger_is_empty(tmp_path: Path) -> None:
    assert HandledIndex(World.new().repository.ledger, tmp_path / "handled.json").read() == Handled()


def test_an_index_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    world = play([("push_main", True), ("handle", True)])
    assert HandledIndex(world.repository.ledger, tmp_path / "no" / "folder" / "h.json").read() == world.handled()


def test_what_a_push_moved_by_the_ledger_is_work_and_what_a_pin_moved_is_not() -> None:
    fold = Handled()
    fold.apply(Entry(1, Action.PUSH, (RefMove.named(NAME, ZERO_ID, A), RefMove.named(TAG, ZERO_ID, B)), WHO, "push", 1))
    assert fold.refs == {}
    fold.apply(Entry(2, Action.HANDLED, (), WHO, "run", 2, {"refs": {NAME: A, TAG: B}}))
    fold.apply(Entry(3, Action.PIN, (RefMove.named(NAME, A, C),), WHO, "pin", 3))
    assert fold.refs == {NAME: C, TAG: B}
