"""What a version answers with: its own release, under its own state, whatever else is open."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.model_process import model_process_ended
from workbench.app.agents import open_release, pin_release, serve_version
from workbench.app.importing.file import import_file
from workbench.domain.errors import Corrupt, NativeCrash, NotFound, UserError, WorldError
from workbench.domain.ids import ObjectId
from workbench.domain.refs import MAIN
from workbench.inference.process import ProcessModel
from workbench.ports.call import Call
from workbench.ports.store import Artifact
from workbench.runner import services as module
from workbench.runner import version
from workbench.runner.lookup import read_state
from workbench.runner.services import VersionServices
from workbench.sdk import model as sdk_model
from workbench.sdk.services import bind, current
from workbench.state.document import ACTIVE_PATH, StateDocument
from workbench.store.git.repository import GitRepository

WHO = "A <a@example.com>"


@pytest.fixture
def tiny_release(repository: GitRepository, tiny: Any) -> Artifact:
    return import_file(repository, tiny.q8, name="tiny", license="MIT", who=WHO, trial=lambda model: None)


def pinned(repository: GitRepository, artifact: Artifact) -> str:
    return str(pin_release(repository, artifact, who=WHO).version)


def state_of(repository: GitRepository, **sampling: object) -> StateDocument:
    main = repository.refs.get(str(MAIN))
    assert main is not None
    state = read_state(repository, main)
    return StateDocument.model_validate(state.model_dump() | {"sampling": state.sampling.model_dump() | sampling})


def test_two_versions_at_once_answer_each_under_its_own_state(
    repository: GitRepository,
    commit,
    tiny_release: Artifact,
) -> None:
    first = pinned(repository, tiny_release)
    changed = state_of(repository, temperature=1.5, seed=3, max_tokens=9)
    commit({ACTIVE_PATH: changed.to_bytes()})
    second = pinned(repository, tiny_release)
    (_, old), (_, new) = serve_version(repository, first), serve_version(repository, second)
    try:
        answers = [services.complete("let x", max_tokens=None, seed=None) for services in (old, new, old, new)]
        assert answers[0] == answers[2]
        assert answers[1] == answers[3]
        assert answers[0] != answers[1]
        assert (answers[1].seed, answers[1].completion_tokens <= 9) == (3, True)
        asked = new.fill_in_middle("fn a(", ") {}", max_tokens=4, seed=11)
        assert (asked.seed, asked.completion_tokens <= 4) == (11, True)
        assert asked == new.fill_in_middle("fn a(", ") {}", max_tokens=4, seed=11)
        assert new.complete("let x", max_tokens=4096, seed=None).finish in ("length", "end")
    finally:
        old.close()
        new.close()


def test_after_closing_the_model_is_opened_again_when_it_is_asked(
    repository: GitRepository, tiny_release: Artifact
) -> None:
    _, services = serve_version(repository, pinned(repository, tiny_release))
    first = services.complete("let", max_tokens=3, seed=0)
    services.close()
    services.close()
    assert services.complete("let", max_tokens=3, seed=0) == first
    services.close()


def test_the_sdk_answers_with_what_it_is_bound_to_and_nowhere_else(
    repository: GitRepository, tiny_release: Artifact
) -> None:
    _, services = serve_version(repository, pinned(repository, tiny_release))
    with bind(services):
        assert sdk_model.complete("let", max_tokens=3).completion_tokens <= 3
    services.close()
    with pytest.raises(UserError, match="only inside a Runner"):
        current()


def test_a_tag_that_names_another_release_than_the_pinned_one_is_not_opened(
    repository: GitRepository,
    commit,
    tiny_release: Artifact,
) -> None:
    pinned(repository, tiny_release)
    state = state_of(repository)
    assert state.release is not None
    other = state.release.model_copy(update={"tree": ObjectId("1" * 40)})
    made = commit({ACTIVE_PATH: state.model_copy(update={"release": other}).to_bytes()})
    _, services = serve_version(repository, commit=made)
    with pytest.raises(Corrupt, match="pins 111111111111"):
        services.complete("let", max_tokens=1, seed=0)


def test_a_version_that_pins_nothing_says_how_to_pin(repository: GitRepository) -> None:
    _, services = serve_version(repository, commit="main")
    with pytest.raises(NotFound, match="workbench pin"):
        services.complete("let", max_tokens=1, seed=0)


def test_a_quantisation_that_the_release_lacks_is_said_with_those_it_has(
    repository: GitRepository,
    commit,
    tiny_release: Artifact,
) -> None:
    pinned(repository, tiny_release)
    state = state_of(repository).model_copy(update={"quantisation": "Q4_K_M"})
    _, services = serve_version(repository, commit=commit({ACTIVE_PATH: state.to_bytes()}))
    with pytest.raises(NotFound, match=r"no Q4_K_M model[\s\S]*Q8_0"):
        services.complete("let", max_tokens=1, seed=0)


def test_a_search_that_did_not_see_everything_says_so(
    repository: GitRepository,
    commit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = b"fn f() { a.unwrap(); }\n"
    large = commit({"src/a.rs": found, "src/large.rs": b"// long\n" * (1 << 20)})
    _, services = serve_version(repository, commit=large)
    answer = services.search("$X.unwrap()", language="rust", code=None, limit=5)
    assert (answer.outcome, len(answer.matches), answer.files_searched) == ("truncated", 1, 1)
    assert "src/large.rs" in answer.detail
    many = commit({"src/large.rs": None, **{f"src/{n}.rs": b"fn g() {}\n" for n in range(30)}})
    _, services = serve_version(repository, commit=many)
    assert services.search("$X.unwrap()", language="rust", code=None, limit=5).outcome == "matched"
    assert services.search("$X.expect()", language="rust", code=None, limit=5).outcome == "no_match"
    monkeypatch.setattr(module, "MAX_FILES", 20)
    answer = services.search("$X.expect()", language="rust", code=None, limit=5)
    assert (answer.outcome, answer.matches) == ("truncated", [])
    assert "first 20 files" in answer.detail


def asked_by(services: VersionServices, call: Call) -> None:
    with bind(services, call):
        services.complete("let", max_tokens=200, seed=0)


@pytest.fixture
def held(repository: GitRepository, tiny_release: Artifact) -> Iterator[tuple[VersionServices, ProcessModel]]:
    """Services whose model has been opened and does not go on: its process is stopped."""
    opened: list[Any] = []
    snapshot = version.load(repository, pinned(repository, tiny_release))

    def open_model(_: version.AgentSnapshot) -> Any:
        opened.append(open_release(repository, tiny_release))
        return opened[-1]

    services = VersionServices(repository, snapshot, open_model)
    services.complete("let", max_tokens=1, seed=0)
    os.kill(opened[0].pid, signal.SIGSTOP)
    yield services, opened[0]
    services.close()


def test_closing_ends_the_answer_that_is_being_made_and_those_in_line(
    held: tuple[VersionServices, ProcessModel],
) -> None:
    services, model = held
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(asked_by, services, call) for call in (Call(), Call())]
        while model.taken < 2:
            pass
        services.close()
        for one in asked:
            with pytest.raises(UserError, match="the model is closed"):
                one.result(30)


def test_a_call_that_nobody_waits_for_ends_at_work_and_never_starts_in_line(
    held: tuple[VersionServices, ProcessModel],
) -> None:
    services, model = held
    at_work, in_line = Call(), Call()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(asked_by, services, at_work)
        while model.taken < 1:
            pass
        second = pool.submit(asked_by, services, in_line)
        while model.taken < 2:
            pass
        in_line.cancel()
        with pytest.raises(WorldError, match="was cancelled"):
            second.result(30)
        at_work.cancel()
        assert model.pid is not None
        os.kill(model.pid, signal.SIGCONT)
        with pytest.raises(WorldError, match="was cancelled"):
            first.result(30)
    with pytest.raises(WorldError, match="was cancelled"):
        asked_by(services, at_work)


class GoneAt(Call):
    """Nobody waits any more from the ``number``-th look on."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    @property
    def is_cancelled(self) -> bool:
        self._number -= 1
        return self._number <= 0


def test_a_crash_of_the_model_is_an_error_of_the_call_and_the_next_is_answered(
    repository: GitRepository, tiny_release: Artifact
) -> None:
    _, services = serve_version(repository, pinned(repository, tiny_release))
    with model_process_ended(), pytest.raises(NativeCrash, match="of release/tiny/"):
        services.complete("let", max_tokens=3, seed=0)
    assert services.complete("let", max_tokens=3, seed=0).completion_tokens <= 3
    services.close()


def test_a_search_that_nobody_waits_for_ends_at_the_next_file(repository: GitRepository, commit) -> None:
    many = commit({f"src/{n}.rs": b"fn g() {}\n" for n in range(30)})
    _, services = serve_version(repository, commit=many)
    with bind(services, GoneAt(20)), pytest.raises(WorldError, match="was cancelled"):
        services.search("$X.unwrap()", language="rust", code=None, limit=5)
