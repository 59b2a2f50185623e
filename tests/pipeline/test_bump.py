"""The rule of versions: what major, minor and patch mean for an artifact."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.domain.ids import Digest, ObjectId
from workbench.domain.manifest import FileEntry, InputEntry, Manifest
from workbench.domain.refs import ArtifactTag, Kind
from workbench.domain.stage import StageSpec
from workbench.domain.version import Bump
from workbench.pipeline.bump import decide_bump

SPEC = StageSpec(
    "tokenizer",
    (Kind.DATASET,),
    Kind.TOKENIZER,
    lambda dial, given: {},
    major_params=("vocab_size",),
    major_files=("tokenizer.model",),
    carries=(Kind.SHARDS,),
)
OLD = Manifest(
    Kind.TOKENIZER,
    "rust",
    files=(FileEntry("report.json", Digest("1" * 64), 1), FileEntry("tokenizer.model", Digest("2" * 64), 1)),
    inputs=(InputEntry(Kind.DATASET, "rust", ObjectId("a" * 40)),),
    params={"vocab_size": 4096, "sweep": []},
    stage="tokenizer",
    code="c" * 64,
    environment={"format": "1", "sentencepiece": "0.2.3"},
)
SHARDS = ArtifactTag.parse("shards/rust/v1.4.2")

CASES = {
    "nothing": ({}, Bump.PATCH, ""),
    "inputs": ({"inputs": (InputEntry(Kind.DATASET, "rust", ObjectId("b" * 40)),)}, Bump.PATCH, "inputs changed"),
    "seed": ({"seed": 1}, Bump.PATCH, "the seed changed"),
    "library": ({"environment": {"format": "1", "sentencepiece": "0.3"}}, Bump.PATCH, "the environment changed"),
    "parameter": ({"params": {"vocab_size": 4096, "sweep": [1]}}, Bump.MINOR, "parameter sweep changed"),
    "code": ({"code": "d" * 64}, Bump.MINOR, "the stage's code changed"),
    "ids": ({"params": {"vocab_size": 8192, "sweep": []}}, Bump.MAJOR, "parameter vocab_size defines ids"),
    "format": ({"environment": {"format": "2", "sentencepiece": "0.2.3"}}, Bump.MAJOR, "output format 1 -> 2"),
    "file": (
        {"files": (FileEntry("tokenizer.model", Digest("3" * 64), 1),)},
        Bump.MAJOR,
        "tokenizer.model defines ids",
    ),
    "other file": (
        {"files": (FileEntry("report.json", Digest("3" * 64), 1), OLD.files[1])},
        Bump.PATCH,
        "",
    ),
}


@pytest.mark.parametrize(("changes", "bump", "why"), CASES.values(), ids=CASES.keys())
def test_the_rule(changes, bump: Bump, why: str) -> None:
    decision = decide_bump(SPEC, OLD, replace(OLD, **changes))
    assert decision.bump is bump
    assert why in ", ".join(decision.why)


def test_ids_of_an_input_that_stand_in_the_output_carry_its_major_step_on() -> None:
    major, minor = ArtifactTag.parse("shards/rust/v2.0.0"), ArtifactTag.parse("shards/rust/v1.5.0")
    assert decide_bump(SPEC, OLD, OLD, old_inputs=[SHARDS], new_inputs=[major]).bump is Bump.MAJOR
    assert decide_bump(SPEC, OLD, OLD, old_inputs=[SHARDS], new_inputs=[minor]).bump is Bump.PATCH
    plain = replace(SPEC, carries=())
    assert decide_bump(plain, OLD, OLD, old_inputs=[SHARDS], new_inputs=[major]).bump is Bump.PATCH


def test_the_stage_itself_may_say_that_consumers_must_change() -> None:
    decision = decide_bump(SPEC, OLD, OLD, breaks="ids were reassigned")
    assert decision.bump is Bump.MAJOR
    assert decision.why == ("ids were reassigned",)


changes = st.fixed_dictionaries(
    {},
    optional={
        "params": st.fixed_dictionaries({"vocab_size": st.sampled_from([4096, 8192]), "sweep": st.just([])}),
        "code": st.sampled_from(["c" * 64, "d" * 64]),
        "seed": st.integers(0, 2),
        "inputs": st.sampled_from([OLD.inputs, ()]),
        "environment": st.sampled_from([OLD.environment, {"format": "2"}]),
    },
)


@given(changes, st.sampled_from([*Bump]))
def test_a_person_may_ask_for_more_and_never_gets_less(change, asked: Bump) -> None:
    new = replace(OLD, **change)
    by_rule = decide_bump(SPEC, OLD, new).bump
    assert decide_bump(SPEC, OLD, new, at_least=asked).bump.weight == max(by_rule.weight, asked.weight)


@given(changes, changes)
def test_more_changes_never_make_a_smaller_step(one, two) -> None:
    alone = decide_bump(SPEC, OLD, replace(OLD, **one)).bump
    untouched = {name: value for name, value in two.items() if getattr(OLD, name) != value and name not in one}
    assert decide_bump(SPEC, OLD, replace(OLD, **one, **untouched)).bump.weight >= alone.weight


def test_the_first_version_needs_no_rule() -> None:
    assert decide_bump(SPEC, None, OLD).why == ("the first version",)
