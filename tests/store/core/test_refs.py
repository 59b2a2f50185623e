"""The Refs port, over every adapter."""

from __future__ import annotations

import pytest

from workbench.domain.errors import Conflict, UserError, WorkbenchError
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import RefMove

MAIN = "refs/heads/main"


def test_a_ref_is_made_moved_and_removed(repository, commits):
    one, two = commits(repository, 2)
    refs = repository.refs
    assert refs.get(MAIN) is None
    refs.swap([RefMove.named(MAIN, new=one)])
    assert refs.get(MAIN) == one
    refs.swap([RefMove.named(MAIN, one, two)])
    assert refs.get(MAIN) == two
    refs.swap([RefMove.named(MAIN, two, ZERO_ID)])
    assert refs.get(MAIN) is None


def test_all_lists_what_lies_below_a_prefix_sorted_and_unpeeled(repository, commits):
    commit = commits(repository, 1)[0]
    tag = repository.objects.add_tag("v1.0.0", commit, message="t", who="a", time_ms=0)
    names = [
        "refs/tags/v1.0.0",
        "refs/tags/release/b/v1.0.0",
        "refs/heads/main",
        "refs/heads/main2",
        "refs/notes/evals",
    ]
    repository.refs.swap([RefMove.named(name, new=tag if "tags" in name else commit) for name in names])
    assert list(repository.refs.all()) == sorted(names)
    assert repository.refs.all("refs/tags/") == {n: tag for n in sorted(names) if "tags" in n}
    assert list(repository.refs.all("refs/heads/main")) == ["refs/heads/main", "refs/heads/main2"]
    assert list(repository.refs.all("refs/heads/main2")) == ["refs/heads/main2"]
    assert repository.refs.all("refs/none/") == {}


def test_a_lost_race_is_a_conflict_that_names_the_current_value(repository, commits):
    one, two, three = commits(repository, 3)
    repository.refs.swap([RefMove.named(MAIN, new=one)])
    with pytest.raises(Conflict) as lost:
        repository.refs.swap([RefMove.named(MAIN, two, three)])
    assert (lost.value.ref, lost.value.current) == (MAIN, one)
    with pytest.raises(Conflict) as exists:
        repository.refs.swap([RefMove.named(MAIN, new=two)])
    assert exists.value.current == one
    with pytest.raises(Conflict) as absent:
        repository.refs.swap([RefMove.named("refs/heads/other", one, two)])
    assert (absent.value.ref, absent.value.current) == ("refs/heads/other", "")


def test_several_moves_are_all_made_or_none(repository, commits):
    one, two = commits(repository, 2)
    repository.refs.swap([RefMove.named(MAIN, new=one)])
    with pytest.raises(Conflict):
        repository.refs.swap(
            [
                RefMove.named("refs/heads/a", new=one),
                RefMove.named(MAIN, two, one),
                RefMove.named("refs/heads/z", new=one),
            ]
        )
    assert repository.refs.all() == {MAIN: one}


def test_a_move_to_the_same_value_only_checks_it(repository, commits):
    one, two = commits(repository, 2)
    repository.refs.swap([RefMove.named(MAIN, new=one)])
    repository.refs.swap([RefMove.named(MAIN, one, one), RefMove.named("refs/heads/absent")])
    with pytest.raises(Conflict):
        repository.refs.swap([RefMove.named(MAIN, two, two)])


def test_a_ref_never_names_an_object_that_is_not_there(repository):
    with pytest.raises(WorkbenchError):
        repository.refs.swap([RefMove.named(MAIN, new=ObjectId("1234567890" * 4))])
    assert repository.refs.get(MAIN) is None


def test_a_ref_twice_in_one_change_is_refused(repository, commits):
    one, two = commits(repository, 2)
    with pytest.raises(UserError, match="twice"):
        repository.refs.swap([RefMove.named(MAIN, new=one), RefMove.named(MAIN, new=two)])


@pytest.mark.parametrize(
    "ref",
    [
        *["main", "", "refs/", "refs/heads/", "refs//heads", "refs/heads/a..b", "refs/heads/a.lock", "refs/heads/.a"],
        *["refs/a b", "refs/heads/a\nb", "refs/heads/a\0", "refs/heads/a~1", "refs/heads/a^", "refs/heads/a:b"],
        *["refs/heads/a?", "refs/a*", "refs/heads/[a", "refs/heads/a\\b", "refs/heads/@{u}", "refs/heads/a."],
        *["refs/heads/a.lock/b", "refs/../config", "../refs/heads/a", "refs/heads/\ud800"],
    ],
)
def test_a_name_that_is_no_ref_is_refused_before_anything_is_done(repository, commits, ref):
    one = commits(repository, 1)[0]
    with pytest.raises(UserError, match="not a full ref"):
        repository.refs.swap([RefMove.named(ref, new=one)])
    with pytest.raises(UserError, match="not a full ref"):
        repository.refs.get(ref)


@pytest.mark.parametrize("ref", ['refs/heads/"a', "refs/heads/é", "refs/heads/\udcff", "refs/heads/" + "é" * 200])
def test_a_name_that_git_takes_and_we_do_not_is_read_and_never_written(repository, commits, ref):
    assert repository.refs.get(ref) is None
    with pytest.raises(UserError, match="not a full ref"):
        repository.refs.swap([RefMove.named(ref, new=commits(repository, 1)[0])])


def test_many_refs_in_one_change_are_made(repository, commits):
    one = commits(repository, 1)[0]
    repository.refs.swap([RefMove.named(f"refs/tags/raw/n{i}/v1.0.0", new=one) for i in range(500)])
    assert len(repository.refs.all("refs/tags/raw/")) == 500
