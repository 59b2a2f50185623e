"""Pipelines as files: what is read, and how each mistake is answered."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.app.wiring import stage_specs
from workbench.domain.errors import NotFound, UserError
from workbench.domain.refs import Kind
from workbench.pipeline.definition import load, names_in, parse

PATH = "ci/pipelines/toy.toml"
HEAD = 'format = 1\nname = "toy"\n'
OWN = '[[stages]]\nname = "a"\ncommand = ["true"]\nmakes = "raw"\n'


def _parse(text: str, specs=()):
    return parse(text.encode(), PATH, specs)


def test_the_nine_stages_are_taken_with_the_parameters_that_the_dial_sets() -> None:
    source = '{ kind = "path", name = "x", location = "/x" }'
    definition = _parse(f"{HEAD}dial = 2\nseed = 7\n[stage.crawl]\nsources = [{source}]\n", stage_specs())
    names = [use.spec.name for use in definition.stages]
    assert names == ["crawl", "filter", "dataset", "tokenizer", "shard", "train", "evaluate", "package", "serve"]
    assert {use.seed for use in definition.stages} == {7}
    assert definition.stage("tokenizer").params["vocab_size"] == 4096
    bigger = _parse(f"{HEAD}dial = 3\n[stage.crawl]\nsources = [{source}]\n", stage_specs())
    assert bigger.stage("tokenizer").params["vocab_size"] > 4096


def test_own_stages_stand_after_what_they_read_whatever_the_order_in_the_file() -> None:
    first = '[[stages]]\nname = "late"\ncommand = ["x"]\nreads = ["raw"]\nmakes = "dataset"\n'
    definition = _parse(HEAD + first + OWN)
    assert [use.spec.name for use in definition.stages] == ["a", "late"]
    assert definition.stage("late").spec.reads == (Kind.RAW,)


def test_a_stage_may_have_a_seed_of_its_own() -> None:
    definition = _parse(HEAD + "seed = 3\n[stage.a]\nseed = 5\nx = 1\n" + OWN)
    assert definition.stage("a").seed == 5
    assert definition.stage("a").params == {"x": 1}


MISTAKES = {
    "no toml": ("x = = 1", "cannot be read: not TOML"),
    "no text": ("\udcff", "it is not UTF-8"),
    "no format": ('name = "toy"', "format is None"),
    "other format": ('format = 2\nname = "toy"', "format is 2"),
    "unknown key": (HEAD + "dail = 2", "unknown key 'dail'\n  did you mean 'dial'"),
    "dial is text": (HEAD + 'dial = "big"', "dial is 'big'"),
    "dial is a truth": (HEAD + "dial = true", "dial is True"),
    "seed below zero": (HEAD + "seed = -1", "seed is -1"),
    "no threads": (HEAD + "threads = 0", "threads is 0"),
    "bad name": ('format = 1\nname = "To y"', "not a valid name"),
    "unknown stage": (HEAD + "[stage.b]\nx = 1\n" + OWN, "unknown key 'b'"),
    "a date": (HEAD + OWN + "[stage.a]\nx = 2020-01-01\n", "stage.a.x: dates and times"),
    "not a number": (HEAD + OWN + "[stage.a]\nx = nan\n", "stage.a.x: nan is no finite number"),
    "stage is no table": (HEAD + "stage = 1\n", "stage is not a table"),
    "stages is no array": (HEAD + "stages = 1\n", "stages is not an array of tables"),
    "no command": (HEAD + '[[stages]]\nname = "a"\n', "has no command"),
    "unknown kind": (HEAD + OWN.replace('"raw"', '"rwa"'), "no artifact kind 'rwa'\n  did you mean 'raw'"),
    "code outside": (HEAD + OWN + 'code = ["../x"]\n', "leaves the workspace"),
    "absolute code": (HEAD + OWN + 'code = ["/etc"]\n', "leaves the workspace"),
    "twice": (HEAD + OWN + OWN, "two stages 'a'"),
    "same artifact": (HEAD + OWN + OWN.replace('"a"', '"b"'), "a and b both make raw/toy"),
    "its own result": (HEAD + OWN + 'reads = ["raw"]\n', "a reads raw/toy and makes it"),
    "an empty command": (HEAD + OWN.replace('["true"', '["x\\u0000"'), "command is"),
    "a tool by its path": (HEAD + OWN + 'tools = ["./tools/count"]\n', "tools names './tools/count'"),
    "an option for a tool": (HEAD + OWN + 'tools = ["-x"]\n', "tools names '-x'"),
    "own unknown key": (HEAD + OWN + "maks = 1\n", "unknown key 'maks'"),
    "unknown use": (HEAD + 'use = ["crwal"]\n', "unknown stage 'crwal'"),
    "a circle": (
        HEAD
        + OWN
        + 'reads = ["dataset"]\n'
        + '[[stages]]\nname = "b"\ncommand = ["x"]\nreads = ["raw"]\nmakes = "dataset"\n',
        "wait for each other",
    ),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_each_mistake_names_the_file_and_what_to_do(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text.encode("utf-8", "surrogateescape"), PATH, ())
    assert message in str(caught.value)
    assert PATH in str(caught.value)
    assert caught.value.hint


def test_an_own_stage_may_read_a_kind_and_make_it_under_another_name_and_names_each_input_once() -> None:
    definition = _parse(HEAD + OWN + 'artifact = "other"\nreads = ["raw", "raw"]\n')
    assert definition.stage("a").spec.reads == (Kind.RAW,)


def test_an_own_stage_takes_no_name_of_the_nine_even_where_that_one_is_left_out() -> None:
    text = HEAD + "use = []\n" + OWN.replace('"a"', '"filter"')
    with pytest.raises(UserError, match="filter has the name of a stage of the workbench"):
        parse(text.encode(), PATH, stage_specs())


def test_a_wrong_parameter_of_a_stage_names_the_file_the_stage_and_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        _parse(HEAD + 'use = ["tokenizer"]\n[stage.tokenizer]\nvocab_sise = 1\n', stage_specs())
    assert f"{PATH}: [stage.tokenizer]" in caught.value.what
    assert "vocab_size" in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_a_pipeline_or_a_mistake_of_the_user(text: str) -> None:
    with contextlib.suppress(UserError):
        parse((HEAD + text).encode("utf-8", "replace"), PATH, ())


def test_pipelines_are_found_in_a_commit_and_a_wrong_name_meets_the_nearest(toy) -> None:
    objects = toy.repository.objects
    assert names_in(objects, toy.commit) == ("toy",)
    with pytest.raises(NotFound, match=r"did you mean 'toy'"):
        load(objects, toy.commit, "tyo", ())
