"""Manifest, run record and ledger entry: what is written is read back, one spelling each, unknown formats refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.domain.canonical import canonical_json, digest_of
from workbench.domain.errors import Conflict, Corrupt
from workbench.domain.ids import Digest, ObjectId, make_ulid
from workbench.domain.ledger import Action, Entry, RefMove
from workbench.domain.manifest import FileEntry, InputEntry, Manifest
from workbench.domain.refs import Kind
from workbench.domain.run import FINAL, TRANSITIONS, RunRecord, State, StepRecord

IDS = st.from_regex(r"[0-9a-f]{40}", fullmatch=True).map(ObjectId)
DIGESTS = st.from_regex(r"[0-9a-f]{64}", fullmatch=True).map(Digest)
NAMES = st.from_regex(r"[a-z0-9](?:[a-z0-9_-]{0,20}[a-z0-9])?", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
KINDS = st.sampled_from(Kind)
WHOLE = st.integers(0, 2**53)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXT, inside, max_size=3),
    max_leaves=8,
)
MAPS = st.dictionaries(TEXT, JSON, max_size=4)

MANIFESTS = st.builds(
    Manifest,
    kind=KINDS,
    name=NAMES,
    files=st.lists(st.builds(FileEntry, TEXT.filter(bool), DIGESTS, WHOLE, st.integers(0, 99)), max_size=4).map(
        lambda files: tuple(sorted(files))
    ),
    inputs=st.lists(st.builds(InputEntry, KINDS, NAMES, IDS), max_size=3).map(lambda inputs: tuple(sorted(inputs))),
    params=MAPS,
    seed=WHOLE,
    stage=TEXT,
    code=TEXT,
    environment=st.dictionaries(TEXT, TEXT, max_size=3),
    action_key=TEXT,
    counts=st.dictionaries(TEXT, WHOLE, max_size=3),
    metrics=MAPS,
)
ENTRIES = st.builds(
    Entry,
    counter=WHOLE,
    action=st.sampled_from(Action),
    moves=st.lists(st.builds(RefMove.named, TEXT, IDS, IDS), max_size=4).map(tuple),
    who=TEXT,
    why=TEXT,
    time_ms=WHOLE,
    evidence=MAPS,
)
STEPS = st.builds(
    StepRecord,
    stage=TEXT,
    state=st.sampled_from(State),
    why=TEXT,
    started_ms=WHOLE,
    error=TEXT,
    rates=st.dictionaries(TEXT, st.floats(0, 1e9), max_size=2),
)
RUNS = st.builds(
    RunRecord,
    id=st.builds(make_ulid, st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10)),
    kind=st.sampled_from(["pipeline", "tier"]),
    subject=TEXT,
    source=TEXT,
    trigger=TEXT,
    state=st.sampled_from(State),
    steps=st.lists(STEPS, max_size=3).map(tuple),
    options=MAPS,
    created_ms=WHOLE,
    pid=WHOLE,
)
EXAMPLES = [
    Manifest(kind=Kind.RAW, name="rust"),
    Entry(1, Action.INIT, (RefMove.named("refs/heads/main"),), "a", "b", 0),
    RunRecord(make_ulid(0, bytes(10)), "pipeline", "rust", "0" * 40, "command", steps=(StepRecord("crawl"),)),
]


@given(MANIFESTS | ENTRIES | RUNS)
def test_a_record_is_read_back_and_written_in_the_same_bytes(record):
    data = record.to_bytes()
    again = type(record).from_bytes(data)
    assert again == record
    assert again.to_bytes() == data


@given(MANIFESTS, st.randoms())
def test_a_manifest_has_one_spelling_whatever_the_order_of_its_files(manifest, random):
    shuffled = random.sample(manifest.files, len(manifest.files))
    assert Manifest(**{**manifest.__dict__, "files": tuple(shuffled)}).to_bytes() == manifest.to_bytes()


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
@pytest.mark.parametrize("format", [0, 2, "1", None])
def test_an_unknown_format_is_refused(record, format):
    raw = json.loads(record.to_bytes())
    raw["format"] = format
    with pytest.raises(Corrupt, match="format"):
        type(record).from_bytes(json.dumps(raw).encode())


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_without_one_of_its_fields_is_corrupt_and_never_another_error(record):
    whole = json.loads(record.to_bytes())
    for name in whole:
        less = {key: value for key, value in whole.items() if key != name}
        try:
            type(record).from_bytes(json.dumps(less).encode())
        except Corrupt:
            continue
        assert isinstance(record, RunRecord), name  # a run's optional fields have values of their own


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_bytes_that_are_no_record_are_corrupt_and_never_another_error(data):
    for kind in (Manifest, Entry, RunRecord):
        with pytest.raises(Corrupt):
            kind.from_bytes(data)


@pytest.mark.parametrize("kind", [Manifest, Entry, RunRecord])
def test_a_record_nested_a_hundred_thousand_deep_is_corrupt(kind):
    with pytest.raises(Corrupt):
        kind.from_bytes(b"[" * 100_000)


@given(MAPS)
def test_canonical_json_does_not_depend_on_the_order_of_keys(value):
    again = dict(reversed(value.items()))
    assert canonical_json(again) == canonical_json(value)
    assert digest_of(again) == digest_of(value)
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_canonical_json_refuses_what_has_no_spelling(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"x": value})


@given(st.sampled_from(State), st.sampled_from(State))
def test_a_run_passes_only_through_the_table(before, after):
    run = RunRecord(make_ulid(0, bytes(10)), "pipeline", "rust", "", "", state=before)
    if after in TRANSITIONS[before]:
        assert run.to(after).state is after
    else:
        with pytest.raises(Conflict):
            run.to(after)


def test_what_is_final_leads_nowhere_and_everything_reaches_an_end():
    assert {State.SUCCEEDED, State.FAILED, State.CANCELLED} <= FINAL
    reached = {state: {state} for state in State}
    for _ in State:
        reached = {s: r | {after for via in r for after in TRANSITIONS[via]} for s, r in reached.items()}
    assert all(r & FINAL for r in reached.values())
