"""The dial: at every step of it the nine stages can be planned, and the sizes that it sets go together."""

from __future__ import annotations

import pytest

from workbench.app.wiring import stage_specs
from workbench.config.dial import LARGEST
from workbench.decoder.config import DecoderConfig
from workbench.domain.errors import UserError
from workbench.pipeline.definition import Definition, parse
from workbench.pipeline.plan import Planner

PATH = "ci/pipelines/rust.toml"
DIALS = range(LARGEST + 1)
STAGES = ["crawl", "filter", "dataset", "tokenizer", "shard", "train", "evaluate", "package", "serve"]


def pipeline(dial: int, rest: str = "") -> str:
    source = '{ kind = "path", name = "x", location = "/x" }'
    return f'format = 1\nname = "rust"\ndial = {dial}\n[stage.crawl]\nsources = [{source}]\n{rest}'


def defined(dial: int, rest: str = "") -> Definition:
    return parse(pipeline(dial, rest).encode(), PATH, stage_specs())


def params(dial: int) -> dict[str, dict]:
    return {use.spec.name: dict(use.params) for use in defined(dial).stages}


@pytest.mark.parametrize("dial", DIALS)
def test_every_step_of_the_dial_plans_all_nine_stages(toy, dial: int) -> None:
    plan = Planner(toy.repository, defined(dial), toy.commit).plan()
    assert [step.stage for step in plan.runs] == STAGES


@pytest.mark.parametrize("dial", [-1, LARGEST + 1, 1 << 40])
def test_a_dial_beyond_its_ends_is_refused_when_it_is_planned(dial: int) -> None:
    with pytest.raises(UserError, match=r"ci/pipelines/rust\.toml: (the )?dial is"):
        defined(dial)


@pytest.mark.parametrize("dial", DIALS)
def test_a_model_of_every_step_fits_every_quantisation(dial: int) -> None:
    train, shard, tokenizer = (params(dial)[stage] for stage in ("train", "shard", "tokenizer"))
    config = DecoderConfig(
        vocab_size=tokenizer["vocab_size"],
        hidden_size=train["hidden_size"],
        intermediate_size=train["intermediate_size"],
        num_hidden_layers=train["num_layers"],
        num_attention_heads=train["num_heads"],
        num_key_value_heads=train["num_kv_heads"],
        head_dim=train["hidden_size"] // train["num_heads"],
        max_position_embeddings=shard["context"],
    )
    assert config.quantisable


@pytest.mark.parametrize("dial", DIALS)
def test_the_context_of_every_step_has_room_for_what_is_asked_of_the_model(dial: int) -> None:
    """In the worst case a byte is a token, and a prompt has a begin and three fill-in-the-middle tokens."""
    sizes = params(dial)
    context, evaluate, serve = sizes["shard"]["context"], sizes["evaluate"], sizes["serve"]
    prompts = (serve["prompt"], serve["prefix"] + serve["suffix"])
    assert context >= max(len(text.encode()) for text in prompts) + 4 + serve["max_tokens"]
    assert context >= 2 * 16 + 4 + evaluate["max_new_tokens"]  # 32 characters: the least that evaluate shows
    assert sizes["shard"]["fim_window"] >= 16


@pytest.mark.parametrize("dial", DIALS)
def test_every_step_can_be_divided_into_micro_batches_and_holds_something_out(dial: int) -> None:
    sizes = params(dial)
    assert sizes["train"]["batch_rows"] % sizes["train"]["micro_rows"] == 0
    assert sizes["train"]["checkpoint_every"] <= sizes["train"]["steps"]
    assert 0 < sizes["dataset"]["validation"] <= 0.1
    assert sizes["tokenizer"]["vocab_size"] >= 256 + 64  # bytes, control tokens and some pieces


def test_no_size_shrinks_when_the_dial_is_turned_up() -> None:
    steps = [params(dial) for dial in DIALS]
    for stage, name in (
        ("tokenizer", "vocab_size"), ("shard", "context"), ("train", "hidden_size"), ("train", "num_layers"),
        ("train", "steps"), ("evaluate", "likelihood_bytes"), ("evaluate", "line_tasks"),
    ):  # fmt: skip
        sizes = [step[stage][name] for step in steps]
        assert sizes == sorted(sizes), name


MISFITS = {
    "no room to answer": (
        "[stage.shard]\ncontext = 64\n",
        "[stage.evaluate] a context of 64 tokens has no room for 48",
    ),
    "no room to serve": ("[stage.serve]\nmax_tokens = 128\n", "[stage.serve] a context of 128 tokens has no room"),
    "too narrow": ("[stage.train]\nhidden_size = 64\n", "[stage.package] train's hidden_size 64: no multiple of 256"),
    "not whole blocks": ("[stage.train]\nintermediate_size = 640\n", "train's intermediate_size 640: no multiple"),
    "not released": ("[stage.serve]\nquantisation = 'Q6_K'\n", "'Q6_K' is not in the release\n  package makes F16, Q8"),
}


@pytest.mark.parametrize(("rest", "said"), MISFITS.values(), ids=MISFITS.keys())
def test_sizes_that_do_not_go_together_are_refused_when_they_are_planned(rest: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        defined(1, rest)
    assert said in str(caught.value)
    assert str(caught.value).startswith(PATH)
    assert caught.value.hint


def test_a_narrow_model_is_planned_where_only_q8_0_is_made_of_it() -> None:
    narrow = "[stage.train]\nhidden_size = 64\nintermediate_size = 96\n"
    whole = f"{narrow}[stage.package]\nquantisations = ['Q8_0']\n"
    assert defined(1, whole).stage("train").params["hidden_size"] == 64
    with pytest.raises(UserError, match="no multiple of 32"):
        defined(1, whole.replace("96", "100"))


def test_a_pipeline_without_the_later_stages_has_nothing_to_fit() -> None:
    use = 'use = ["crawl", "filter", "dataset", "tokenizer", "shard", "train"]\n'
    narrow = "[stage.train]\nhidden_size = 64\n[stage.shard]\ncontext = 16\n"
    text = pipeline(1, narrow).replace("dial = 1\n", "dial = 1\n" + use)
    assert len(parse(text.encode(), PATH, stage_specs()).stages) == 6
