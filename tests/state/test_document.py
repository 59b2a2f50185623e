"""The state document: round trip, bounds, and errors that name the wrong value."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from workbench.domain.errors import UserError
from workbench.inference import sampler
from workbench.state.document import MAX_BYTES, PinnedRelease, SamplingState, StateDocument, read


@given(
    temperature=st.floats(0, 5),
    seed=st.integers(0, 2**32 - 1),
    stop=st.lists(st.text(min_size=1, max_size=64), max_size=16),
    tree=st.none() | st.text("0123456789abcdef", min_size=40, max_size=40),
)
def test_a_state_reads_back_as_it_was_written(temperature: float, seed: int, stop: list[str], tree: str | None) -> None:
    release = PinnedRelease(artifact="release/rust/v1.0.0", tree=tree) if tree else None
    sampling = SamplingState(temperature=temperature, seed=seed, stop=tuple(stop))
    state = StateDocument(release=release, sampling=sampling)
    assert read(state.to_bytes()) == state
    assert read(state.to_bytes()).etag == state.etag


@given(
    temperature=st.floats(0, 5),
    top_k=st.integers(0, 100_000),
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
    repeat_penalty=st.floats(0, 10, exclude_min=True),
)
def test_what_a_state_may_say_the_sampler_can_do(**values: float) -> None:
    try:
        state = SamplingState(**values)  # type: ignore[arg-type]
    except ValidationError:
        return
    sampler.check(state.sampling())


def test_the_sampler_s_own_bounds_are_the_state_s() -> None:
    with pytest.raises(UserError, match=r"sampling\.min_p"):
        read(json.dumps({"format": 1, "sampling": {"min_p": 1.0}}).encode())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 2}, "format"),
        ({"sampling": {"temperature": -1}}, "sampling.temperature"),
        ({"sampling": {"repeat_penalty": 1e-300}}, "sampling.repeat_penalty"),
        ({"sampling": {"temprature": 1}}, "sampling.temprature"),
        ({"release": {"artifact": "release/rust/v1.0.0", "tree": "abc"}}, "release.tree"),
        ({"color": "red"}, "color"),
    ],
)
def test_a_wrong_value_is_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(UserError, match=named):
        read(json.dumps({"format": 1} | change).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff\xfe", b"null", b"[" * 60_000, b" " * (MAX_BYTES + 1)])
def test_garbage_is_an_error_that_says_so(data: bytes) -> None:
    with pytest.raises(UserError):
        read(data)
