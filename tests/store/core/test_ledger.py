"""The Ledger port, over every adapter."""

from __future__ import annotations

import pytest

from workbench.domain.errors import Conflict, NotFound, Refused, UserError
from workbench.domain.ids import ZERO_ID
from workbench.domain.ledger import Action, Entry, RefMove

MAIN, ACTIVE, TAG = "refs/heads/main", "refs/workbench/channels/active", "refs/tags/v1.0.0"
LEDGER, CACHE = "refs/workbench/ledger", "refs/workbench/cache"


def pin(repository, old, new, *, tag=None) -> Entry:
    moves = [RefMove.named(MAIN, old, new), RefMove.named(ACTIVE, old, new)]
    moves += [RefMove.named(tag, new=new)] if tag else []
    return repository.ledger.change(
        Action.PIN, moves, who="Ada <ada@example.org>", why="because", evidence={"score": 1.5}
    )


def test_a_change_moves_all_its_refs_and_can_be_read_back(repository, commits):
    one = commits(repository, 1)[0]
    entry = pin(repository, ZERO_ID, one, tag=TAG)
    assert repository.refs.all() == {MAIN: one, TAG: one, ACTIVE: one, LEDGER: entry.commit}
    assert repository.ledger.head() == entry
    assert (entry.counter, entry.who, entry.why, entry.evidence) == (
        1,
        "Ada <ada@example.org>",
        "because",
        {"score": 1.5},
    )


def test_entries_are_chained_and_the_counter_rises_by_one(repository, commits):
    one, two = commits(repository, 2)
    entries = [pin(repository, ZERO_ID, one), pin(repository, one, two), pin(repository, two, one)]
    assert [entry.counter for entry in entries] == [1, 2, 3]
    assert repository.objects.commit(entries[2].commit).parents == (entries[1].commit,)
    assert repository.ledger.history() == entries[::-1]
    assert repository.ledger.history(1) == entries[2:]


def test_an_empty_ledger_has_no_head_and_no_history(repository):
    assert repository.ledger.head() is None
    assert repository.ledger.history() == []
    assert repository.ledger.recover() == []
    with pytest.raises(NotFound):
        repository.ledger.undo(who="a")


def test_a_conflict_names_the_current_value_and_changes_nothing(repository, commits):
    one, two, three = commits(repository, 3)
    pin(repository, ZERO_ID, one)
    before = repository.refs.all()
    with pytest.raises(Conflict) as lost:
        pin(repository, two, three, tag=TAG)
    assert lost.value.current == one
    assert repository.refs.all() == before


def test_a_tag_that_exists_is_not_made_again(repository, commits):
    one, two = commits(repository, 2)
    pin(repository, ZERO_ID, one, tag=TAG)
    with pytest.raises(Conflict) as lost:
        pin(repository, one, two, tag=TAG)
    assert (lost.value.ref, lost.value.current) == (TAG, one)
    assert repository.refs.get(MAIN) == one


def test_files_change_the_run_cache_in_the_same_entry(repository, commits):
    one = commits(repository, 1)[0]
    moves = [RefMove.named(TAG, new=one)]
    first = repository.ledger.change(Action.PUBLISH, moves, who="a", why="", files={"ab/abcd": b"{}", "last/x": b"1"})
    assert {str(m.ref) for m in first.moves} == {TAG, CACHE}
    repository.ledger.change(Action.PUBLISH, [], who="a", why="", files={"last/x": b"2", "ab/abcd": None})
    cache = repository.refs.get(CACHE)
    assert {e.path: repository.objects.read_blob(e.id) for e in repository.objects.walk(cache)} == {"last/x": b"2"}
    assert len(repository.objects.history(cache)) == 2


def test_an_entry_may_move_nothing_and_only_record(repository):
    entry = repository.ledger.change(Action.HANDLED, [], who="worker", why="push", evidence={"refs": {MAIN: "x"}})
    assert repository.ledger.head() == entry


@pytest.mark.parametrize("ref", [LEDGER, CACHE])
def test_the_ledger_and_the_cache_are_not_moved_by_hand(repository, commits, ref):
    with pytest.raises(UserError, match="not moved by hand"):
        repository.ledger.change(Action.PIN, [RefMove.named(ref, new=commits(repository, 1)[0])], who="a", why="")


def test_undo_moves_channels_and_branches_back_and_leaves_tags(repository, commits):
    one, two = commits(repository, 2)
    pin(repository, ZERO_ID, one)
    pin(repository, one, two, tag=TAG)
    undone = repository.ledger.undo(who="Bob")
    assert repository.refs.get(MAIN) == repository.refs.get(ACTIVE) == one
    assert repository.refs.get(TAG) == two
    assert (undone.action, undone.evidence, undone.counter) == (Action.UNDO, {"undoes": 2}, 3)


def test_undo_again_goes_one_further_back_and_removes_what_was_new(repository, commits):
    one, two = commits(repository, 2)
    pin(repository, ZERO_ID, one)
    pin(repository, one, two)
    repository.ledger.undo(who="Bob")
    repository.ledger.undo(who="Bob")
    assert set(repository.refs.all()) == {LEDGER}
    with pytest.raises(NotFound, match="no entry can be undone"):
        repository.ledger.undo(who="Bob")


def test_an_undo_can_itself_be_undone_by_its_number(repository, commits):
    one, two = commits(repository, 2)
    pin(repository, ZERO_ID, one)
    pin(repository, one, two)
    undone = repository.ledger.undo(who="Bob")
    repository.ledger.undo(undone.counter, who="Bob")
    assert repository.refs.get(ACTIVE) == two


def test_what_was_redone_is_undone_by_default_again(repository, commits):
    one, two = commits(repository, 2)
    pin(repository, ZERO_ID, one)
    pin(repository, one, two)
    repository.ledger.undo(repository.ledger.undo(who="Bob").counter, who="Bob")
    assert repository.ledger.undo(who="Bob").evidence == {"undoes": 2}
    assert repository.refs.get(ACTIVE) == one


def test_an_entry_is_undone_once_and_the_refusal_names_the_redo(repository, commits):
    one, two = commits(repository, 2)
    pin(repository, ZERO_ID, one)
    pin(repository, one, two)
    undone = repository.ledger.undo(2, who="Bob")
    with pytest.raises(Refused, match=f"undone already, by entry {undone.counter}") as refused:
        repository.ledger.undo(2, who="Bob")
    assert f"workbench undo {undone.counter}" in refused.value.hint
    repository.ledger.undo(undone.counter, who="Bob")
    repository.ledger.undo(2, who="Bob")
    assert repository.refs.get(ACTIVE) == one


def test_a_push_is_undone_when_it_is_named_and_not_by_default(repository, commits):
    one, two = commits(repository, 2)
    pin(repository, ZERO_ID, one)
    moves = [RefMove.named(MAIN, one, two), RefMove.named("refs/heads/topic", new=two), RefMove.named(TAG, new=two)]
    pushed = repository.ledger.change(Action.PUSH, moves, who="Ada", why="push main, topic, v1.0.0")
    undone = repository.ledger.undo(pushed.counter, who="Bob")
    assert repository.refs.get(MAIN) == one
    assert repository.refs.get("refs/heads/topic") is None
    assert repository.refs.get(TAG) == two
    assert undone.evidence == {"undoes": pushed.counter}
    repository.ledger.undo(undone.counter, who="Bob")
    assert repository.refs.get(MAIN) == repository.refs.get("refs/heads/topic") == two
    with pytest.raises(Conflict):  # the default is the pin, on which the push stands
        repository.ledger.undo(who="Bob")


@pytest.mark.parametrize("action", [Action.INIT, Action.PUSH])
def test_the_entry_that_made_main_is_not_undone(repository, commits, action):
    one = commits(repository, 1)[0]
    repository.ledger.change(action, [RefMove.named(MAIN, new=one), RefMove.named(TAG, new=one)], who="Ada", why="")
    before = repository.refs.all()
    with pytest.raises(Refused, match="made main"):
        repository.ledger.undo(1, who="Bob")
    assert repository.refs.all() == before


def test_an_undo_of_what_has_moved_on_is_a_conflict(repository, commits):
    one, two, three = commits(repository, 3)
    pin(repository, ZERO_ID, one)
    pin(repository, one, two)
    repository.refs.swap([RefMove.named(MAIN, two, three)])
    with pytest.raises(Conflict, match=r"entry 2 \(pin\) cannot be undone any more: refs/heads/main is at") as lost:
        repository.ledger.undo(2, who="Bob")
    assert lost.value.current == three
    assert "pin another release" in lost.value.hint
    assert repository.refs.get(ACTIVE) == two


def test_an_entry_that_only_made_tags_has_nothing_to_undo(repository, commits):
    repository.ledger.change(Action.PUBLISH, [RefMove.named(TAG, new=commits(repository, 1)[0])], who="a", why="")
    with pytest.raises(UserError, match="nothing to undo"):
        repository.ledger.undo(1, who="a")
    with pytest.raises(NotFound, match="no entry 7"):
        repository.ledger.undo(7, who="a")


def test_resolve_takes_what_people_write(repository, commits):
    one, two = commits(repository, 2)
    tag = repository.objects.add_tag("release/rust/v1.0.0", one, message="t", who="a", time_ms=0)
    newer = repository.objects.add_tag("release/rust/v1.10.0", two, message="t", who="a", time_ms=0)
    moves = [
        RefMove.named("refs/tags/release/rust/v1.0.0", new=tag),
        RefMove.named("refs/tags/release/rust/v1.10.0", new=newer),
    ]
    repository.ledger.change(
        Action.PIN, [*moves, RefMove.named(ACTIVE, new=one), RefMove.named(MAIN, new=two)], who="a", why=""
    )
    expected = {
        "refs/heads/main": two, "main": two, "active": one, "release/rust/v1.0.0": one, "release/rust": two, "tags/"
        "release/rust/v1.0.0": one, one: one, one[:9]: one, tag: one,
    }  # fmt: skip
    assert {name: repository.resolve(name) for name in expected} == expected


HOSTILE = ("v7.7.7", "active", "canary", "release", "release/rust", "release/rust/v1.0.0", "refs/heads/main")


@pytest.mark.parametrize("name", HOSTILE)
def test_no_branch_stands_in_for_another_name(repository, commits, name):
    one, two = commits(repository, 2)
    repository.refs.swap([RefMove.named(MAIN, new=one), RefMove.named(f"refs/heads/{name}", new=two)])
    if name == "refs/heads/main":
        assert repository.resolve(name) == one
        repository.refs.swap([RefMove(MAIN, old=one)])
    with pytest.raises(NotFound):
        repository.resolve(name)
    assert repository.resolve(f"heads/{name}") == two


def test_a_channel_goes_before_a_branch_of_its_name(repository, commits):
    one, two = commits(repository, 2)
    repository.refs.swap(
        [RefMove.named("refs/workbench/channels/nightly", new=one), RefMove.named("refs/heads/nightly", new=two)]
    )
    assert repository.resolve("nightly") == one


@pytest.mark.parametrize(
    ("name", "near"),
    [("actve", "active"), ("release/rust/v1.0.1", "release/rust/v1.0.0"), ("realease/rust", "release/rust")],
)
def test_resolve_of_an_unknown_name_says_the_nearest(repository, commits, name, near):
    one = commits(repository, 1)[0]
    repository.refs.swap([RefMove.named("refs/tags/release/rust/v1.0.0", new=one), RefMove.named(ACTIVE, new=one)])
    with pytest.raises(NotFound) as unknown:
        repository.resolve(name)
    assert near in unknown.value.hint


@pytest.mark.parametrize(
    "name", ["", " ", "a..b", "--help", "-x", "\n", "../../etc/passwd", "deadbeef", "HEAD~1", "é" * 300]
)
def test_resolve_of_garbage_is_an_ordinary_error(repository, name):
    with pytest.raises(NotFound):
        repository.resolve(name)


def test_an_entry_that_nobody_could_read_is_not_written(repository):
    before = repository.ledger.head()
    with pytest.raises(Refused, match=r"the ledger cannot hold this: .*why: text of"):
        repository.ledger.change(Action.PUBLISH, [], who="A <a@b>", why="x" * (2 << 20))
    assert repository.ledger.head() == before
