"""Action keys and reasons: stable, and told by the part that changed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from workbench.app.wiring import stage_specs
from workbench.config.installed import command_for
from workbench.domain.action import ActionParts, Change
from workbench.domain.errors import NotFound, ToolMissing, UserError
from workbench.domain.refs import Kind
from workbench.domain.stage import StageSpec
from workbench.hub.planning import describe
from workbench.inference.variants import libraries, scores
from workbench.pipeline.environment import environment_of, instruction_set
from workbench.pipeline.plan import Mode, Planner
from workbench.pipeline.process import step_environment


def test_the_action_key_of_known_parts_never_changes() -> None:
    parts = ActionParts(
        "tokenizer",
        "rust",
        "tokenizer",
        "c" * 64,
        {"vocab_size": 4096},
        7,
        {"dataset": "a" * 40},
        {"sentencepiece": "0.2.3"},
    )
    assert parts.key == "780d61febd1deb29dcbc09f48e109771e44a649062281335df71a24b494c44b3"


WHY = {
    "parameter": (("ci/pipelines/toy.toml", "b a c a", "x"), [Change.PARAMS], "parameter text changed: b a c a -> x"),
    "code": (("tools/words.py", "sorted(", "list("), [Change.CODE], "the stage's code changed"),
    "comment": (("tools/words.py", "import json", "# no reason\nimport json"), [Change.KNOWN], "nothing changed"),
    "seed": (("ci/pipelines/toy.toml", "text = ", "seed = 4\ntext = "), [Change.SEED], "seed changed: 0 -> 4"),
    "library": (
        ("ci/pipelines/toy.toml", 'name = "words"', 'name = "words"\nlibraries = ["rich"]'),
        [Change.ENVIRONMENT],
        "environment rich is new",
    ),
}


@pytest.mark.parametrize(("edit", "changes", "why"), WHY.values(), ids=WHY.keys())
def test_why_names_the_part_that_changed(toy, edit, changes, why: str) -> None:
    toy.run()
    toy.replace(*edit)
    step = toy.planner.why("words")
    assert list(step.reason.changes) == changes
    assert why in str(step.reason)
    if step.runs:
        assert "input raw is rebuilt first, by words" in str(toy.planner.why("count").reason)


def test_a_second_output_name_is_a_first_run(toy) -> None:
    toy.run()
    toy.replace("ci/pipelines/toy.toml", 'name = "toy"', 'name = "other"')
    assert toy.planner.why("words").reason.changes == (Change.FIRST,)


def test_an_artifact_that_was_deleted_is_built_again(toy) -> None:
    from workbench.domain.ids import ZERO_ID
    from workbench.domain.ledger import Action, RefMove

    toy.run()
    ref = "refs/tags/dataset/toy/v1.0.0"
    old = toy.repository.refs.get(ref)
    toy.repository.ledger.change(Action.DELETE, [RefMove.named(ref, old, ZERO_ID)], who="T <t@example.com>", why="test")
    assert str(toy.planner.why("count").reason) == "dataset/toy/v1.0.0 is no longer there"
    assert toy.states(toy.run()) == {"words": "reused", "count": "succeeded"}


def test_wrong_stages_are_named_with_the_nearest(toy) -> None:
    with pytest.raises(NotFound, match=r"did you mean 'words'"):
        toy.planner.plan(Mode(only="wrods"))
    with pytest.raises(NotFound, match=r"did you mean 'count'"):
        toy.planner.why("coutn")
    with pytest.raises(UserError, match="exclude each other"):
        toy.planner.plan(Mode(only="words", start="count"))


def test_what_is_compared_with_the_last_version_does_not_chase_its_own_result(toy) -> None:
    toy.run()
    judge = replace(toy.definition.stage("count").spec, previous=True)
    definition = replace(
        toy.definition,
        stages=tuple(replace(use, spec=judge) if use.spec.name == "count" else use for use in toy.definition.stages),
    )
    planner = Planner(toy.repository, definition, toy.commit)
    # What stands there was made without anything to compare with, and from the same parts: it is known.
    assert planner.why("count").reason.changes == (Change.KNOWN,)
    changed = replace(definition, stages=(definition.stages[0], replace(definition.stages[1], params={"n": 1})))
    (previous,) = [
        each for each in Planner(toy.repository, changed, toy.commit).why("count").inputs if each.role == "previous"
    ]
    assert previous.artifact.tag.short == "dataset/toy/v1.0.0"


def test_modes_travel_through_a_run_record() -> None:
    from workbench.domain.version import Bump

    mode = Mode(start="shard", force=True, bumps={"release": Bump.MAJOR})
    assert Mode.from_json(mode.to_json()) == mode


SPEC = StageSpec("x", (), Kind.RAW, lambda dial, given: {})


def test_the_environment_holds_versions_and_for_hardware_the_machines_class() -> None:
    plain = environment_of(replace(SPEC, libraries=("rich",), tools=("git", "no-such-tool")), 2)
    assert set(plain) == {"format", "python", "rich", "git", "no-such-tool"}
    assert plain["git"].startswith("git version")
    assert plain["no-such-tool"] == "absent"
    exact = environment_of(replace(SPEC, hardware=True), 2)
    assert exact["threads"] == "2"
    assert exact["isa"] == instruction_set()


def test_what_judges_or_packages_a_model_holds_the_variant_of_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [spec for spec in stage_specs() if spec.name in ("evaluate", "package")]
    assert len(specs) == 2
    able = [name for name, score in scores(libraries()).items() if score]
    for variant in able:
        monkeypatch.setenv("WORKBENCH_LLAMA_VARIANT", variant)
        assert [environment_of(spec, 1)["llama.cpp variant"] for spec in specs] == [variant] * 2
    monkeypatch.setenv("WORKBENCH_LLAMA_VARIANT", "z80")
    with pytest.raises(UserError, match="z80 cannot be used"):
        environment_of(specs[0], 1)


def test_a_library_that_is_not_installed_names_the_command_that_installs_it() -> None:
    with pytest.raises(ToolMissing, match=re.escape(command_for("no-such-library"))):
        environment_of(replace(SPEC, libraries=("no-such-library",)), 1)


def test_a_step_sees_a_pinned_environment(tmp_path) -> None:
    base = {
        "PATH": "/bin",
        "PYTHONPATH": "/evil",
        "OMP_NUM_THREADS": "64",
        "GIT_DIR": "/x",
        "HOME": "/home/x",
        "LANG": "tr",
    }
    seen = step_environment(base, threads=3, isa="avx2", scratch=tmp_path)
    assert seen["OMP_NUM_THREADS"] == seen["MKL_NUM_THREADS"] == "3"
    assert (seen["PYTHONHASHSEED"], seen["TZ"], seen["LC_ALL"]) == ("0", "UTC", "C.UTF-8")
    assert seen["ATEN_CPU_CAPABILITY"] == "avx2"
    assert seen["HOME"] == "/home/x"
    assert seen["PATH"].endswith("/bin")
    assert not {"GIT_DIR", "LANG"} & set(seen)
    assert "/evil" not in seen["PYTHONPATH"]


def _lacking(toy, without) -> Planner:  # type: ignore[no-untyped-def]
    """The toy's planner, whose second stage asks for a program that is not there."""
    judge = replace(toy.definition.stage("count").spec, tools=("no-such-tool",), without=without)
    stages = tuple(replace(use, spec=judge) if use.spec.name == "count" else use for use in toy.definition.stages)
    return Planner(toy.repository, replace(toy.definition, stages=stages), toy.commit)


def test_the_plan_says_what_a_step_does_without_a_program_before_anything_runs(toy) -> None:
    planner = _lacking(toy, lambda params, tool, problem: f"does without {tool}: {problem}")
    words, count = planner.plan().steps
    assert words.notes == ()
    assert count.notes == ("does without no-such-tool: it is not installed (apt-get install no-such-tool)",)
    assert count.why.endswith(count.notes[0])
    assert count.to_json()["notes"] == list(count.notes)
    assert any(count.notes[0] in line for line in describe(planner.plan())), "a push is told as well"


def test_a_run_that_would_fail_for_want_of_a_program_does_not_begin(toy) -> None:
    def without(params: object, tool: str, problem: str) -> str:
        raise ToolMissing(f"{tool}: {problem}")

    planner = _lacking(toy, without)
    with pytest.raises(ToolMissing, match="no-such-tool: it is not installed"):
        planner.plan()
    assert len(planner.plan(Mode(only="words")).runs) == 1, "a step that does not run needs nothing"
