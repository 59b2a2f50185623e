"""Pinning: one ledger entry moves state, version and channel; versions answer side by side; undo takes it back."""

from __future__ import annotations

import pytest

from workbench.app.agents import pin_release
from workbench.domain import refs
from workbench.domain.contract import ContractRecord
from workbench.domain.errors import NotFound, Refused, UserError
from workbench.domain.ids import ZERO_ID
from workbench.domain.ledger import RefMove
from workbench.domain.version import Bump
from workbench.runner import source, version
from workbench.store.git.repository import GitRepository

WHO = "A <a@example.com>"


def pinned(repository: GitRepository, artifact, **options):  # type: ignore[no-untyped-def]
    return pin_release(repository, artifact, who=WHO, **options)


def test_the_first_pin_is_version_one_and_active(repository: GitRepository, release) -> None:  # type: ignore[no-untyped-def]
    made = pinned(repository, release("a"), why="first")
    assert str(made.version) == "v1.0.0"
    assert repository.refs.get(str(refs.ACTIVE)) == repository.refs.get(str(refs.MAIN)) == made.commit
    assert repository.resolve("v1.0.0") == made.commit
    snapshot = version.load(repository)
    assert (snapshot.version, snapshot.release) == ("v1.0.0", "release/rust/v1.0.0")
    head = repository.ledger.head()
    assert head is not None
    assert {str(m.ref) for m in head.moves} == {"refs/heads/main", "refs/tags/v1.0.0", "refs/workbench/channels/active"}


def test_each_pin_is_a_patch_while_the_contract_stands(repository: GitRepository, release) -> None:  # type: ignore[no-untyped-def]
    pinned(repository, release("a"))
    assert str(pinned(repository, release("b")).version) == "v1.0.1"
    assert version.load(repository, "v1.0.0").release == "release/rust/v1.0.0"
    assert version.load(repository, "v1.0.1").release == "release/rust/v1.1.0"


def test_a_new_tool_makes_it_minor_and_a_removed_one_major(repository: GitRepository, release, commit) -> None:  # type: ignore[no-untyped-def]
    tool = b"from workbench.sdk import tool\n\n@tool()\ndef hello() -> str:\n    'Greet.'\n    return 'hi'\n"
    pinned(repository, release("a"))
    commit({"agents/hello.py": tool})
    assert str(pinned(repository, release("b")).version) == "v1.1.0"
    commit({"agents/hello.py": None})
    assert str(pinned(repository, release("c")).version) == "v2.0.0"


def test_a_record_that_other_libraries_made_is_not_compared_with(repository: GitRepository, release) -> None:  # type: ignore[no-untyped-def]
    first = pinned(repository, release("a"))
    agents = source.tree_of(repository.objects, first.commit)
    repository.contracts.put(ContractRecord(agents, {"pydantic": "1.0"}, {"format": 1, "tools": {}}))
    made = pinned(repository, release("b"))
    assert (str(made.version), made.reasons) == ("v1.0.1", ("the contract is the same",))


def test_a_person_may_ask_for_more_but_never_for_less(repository: GitRepository, release, commit) -> None:  # type: ignore[no-untyped-def]
    pinned(repository, release("a"))
    assert str(pinned(repository, release("b"), at_least=Bump.MINOR).version) == "v1.1.0"
    commit({"agents/runner.py": b"from workbench.sdk import tool\n\n@tool()\ndef f() -> int:\n    return 1\n"})
    assert str(pinned(repository, release("c"), at_least=Bump.MINOR).version) == "v2.0.0"


def test_pinning_the_same_again_is_refused_and_changes_nothing(repository: GitRepository, release) -> None:  # type: ignore[no-untyped-def]
    artifact = release("a")
    pinned(repository, artifact)
    before = repository.refs.all()
    with pytest.raises(Refused, match="pinned already"):
        pinned(repository, artifact)
    assert repository.refs.all() == before


def test_undo_brings_back_yesterdays_answer_and_keeps_the_tag(repository: GitRepository, release) -> None:  # type: ignore[no-untyped-def]
    first = pinned(repository, release("a"))
    second = pinned(repository, release("b"))
    repository.ledger.undo(who=WHO, why="worse")
    assert repository.refs.get(str(refs.ACTIVE)) == first.commit
    assert repository.resolve("v1.0.1") == second.commit
    assert version.load(repository).version == "v1.0.0"
    assert str(pinned(repository, release("c")).version) == "v1.0.2"


def test_nothing_active_says_what_to_do(repository: GitRepository) -> None:
    with pytest.raises(NotFound, match="workbench pin"):
        version.load(repository)


def test_a_newest_version_whose_code_is_broken_does_not_stand_in_the_way(  # type: ignore[no-untyped-def]
    repository: GitRepository, release, commit
) -> None:
    pinned(repository, release("a"))
    broken = commit({"agents/bad.py": b"def (\n"})
    tag = repository.objects.add_tag("v1.3.0", broken, message="by hand", who=WHO, time_ms=3000)
    repository.refs.swap([RefMove.named("refs/tags/v1.3.0", ZERO_ID, tag)])
    with pytest.raises(UserError, match=r"bad\.py, line 1"):
        pinned(repository, release("b"))
    commit({"agents/bad.py": None})
    made = pinned(repository, release("c"))
    assert str(made.version) == "v2.0.0"
    assert "what v1.3.0 promised cannot be known" in made.reasons[0]


def test_active_is_the_channel_whatever_else_has_that_name(repository: GitRepository, release, commit) -> None:  # type: ignore[no-untyped-def]
    pinned(repository, release("a"))
    other = commit({"agents/runner.py": b"raise SystemExit\n"})
    repository.refs.swap([RefMove.named("refs/heads/active", ZERO_ID, other)])
    assert version.load(repository, "active").version == "v1.0.0"
