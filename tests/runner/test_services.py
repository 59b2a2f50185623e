"""What a version answers with: its own release, under its own state, whatever else is open."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from workbench.app.agents import pin_release, serve_version
from workbench.app.importing.file import import_file
from workbench.domain.errors import Corrupt, NotFound, UserError, WorldError
from workbench.domain.generation import Prompt, Sampling
from workbench.domain.ids import ObjectId
from workbench.domain.refs import MAIN
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
        with pytest.raises(UserError, match="ask for at most"):
            new.complete("let x", max_tokens=4096, seed=None)
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


class Endless:
    """A model that answers until whoever listens ends it."""

    def __init__(self) -> None:
        self.is_closed = False
        self.num_asked = 0
        self.began = threading.Event()

    def generate(self, prompt: Prompt, sampling: Sampling, *, check: Callable[[], None]) -> None:
        self.num_asked += 1
        self.began.set()
        while True:
            check()

    def close(self) -> None:
        self.is_closed = True


def test_closing_gives_up_the_answer_that_is_being_made(repository: GitRepository, tiny_release: Artifact) -> None:
    snapshot = version.load(repository, pinned(repository, tiny_release))
    model = Endless()
    services = VersionServices(repository, snapshot, lambda _: model)  # type: ignore[arg-type,return-value]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(services.complete, "let", max_tokens=4096, seed=0)
        assert model.began.wait(30)
        services.close()
        with pytest.raises(WorldError, match="is ending"):
            asked.result(30)
    assert model.is_closed


class GoneAt(threading.Event):
    """Nobody waits any more from the ``number``-th look on."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def is_set(self) -> bool:
        self._number -= 1
        return self._number <= 0


def asked_by(services: VersionServices, gone: threading.Event) -> None:
    with bind(services, gone):
        services.complete("let", max_tokens=4096, seed=0)


def test_a_call_that_nobody_waits_for_ends_at_work_and_never_starts_in_line(
    repository: GitRepository, tiny_release: Artifact
) -> None:
    snapshot = version.load(repository, pinned(repository, tiny_release))
    model = Endless()
    services = VersionServices(repository, snapshot, lambda _: model)  # type: ignore[arg-type,return-value]
    gone = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        try:
            at_work = pool.submit(asked_by, services, gone)
            assert model.began.wait(30)
            for in_line in [pool.submit(asked_by, services, GoneAt(number)) for number in (1, 2, 3)]:
                with pytest.raises(WorldError, match="was cancelled"):
                    in_line.result(30)
            assert model.num_asked == 1
            gone.set()
            with pytest.raises(WorldError, match="was cancelled"):
                at_work.result(30)
        finally:
            services.close()
    with pytest.raises(WorldError, match="was cancelled"):
        asked_by(services, gone)
    assert model.num_asked == 1


class Sleeper(threading.Event):
    """Whoever looks at it sleeps until he is woken, and is still waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeps, self.wake = threading.Event(), threading.Event()

    def is_set(self) -> bool:
        self.sleeps.set()
        assert self.wake.wait(60)
        return False


def test_a_call_that_was_in_line_when_the_model_was_closed_does_not_open_it_again(
    repository: GitRepository, tiny_release: Artifact
) -> None:
    snapshot = version.load(repository, pinned(repository, tiny_release))
    models = [Endless()]
    services = VersionServices(repository, snapshot, lambda _: models.pop())  # type: ignore[arg-type,return-value]
    first, sleeper = models[0], Sleeper()
    with ThreadPoolExecutor(2) as pool:
        try:
            at_work = pool.submit(asked_by, services, threading.Event())
            assert first.began.wait(30)
            in_line = pool.submit(asked_by, services, sleeper)
            assert sleeper.sleeps.wait(30)
        finally:
            services.close()
            sleeper.wake.set()
        for asked in (at_work, in_line):
            with pytest.raises(WorldError, match="is ending"):
                asked.result(30)
    assert first.num_asked == 1


def test_a_search_that_nobody_waits_for_ends_at_the_next_file(repository: GitRepository, commit) -> None:
    many = commit({f"src/{n}.rs": b"fn g() {}\n" for n in range(30)})
    _, services = serve_version(repository, commit=many)
    with bind(services, GoneAt(20)), pytest.raises(WorldError, match="was cancelled"):
        services.search("$X.unwrap()", language="rust", code=None, limit=5)
