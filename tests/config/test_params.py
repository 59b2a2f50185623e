"""A wrong parameter is answered with the nearest right one."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field

from workbench.config.params import StageParams, resolve_params
from workbench.domain.errors import UserError


class Params(StageParams):
    vocab_size: int = Field(64, ge=2)
    layout: Literal["psm", "spm"] = "psm"


def test_what_is_given_wins_over_the_dial_and_the_dial_over_the_model() -> None:
    assert resolve_params(Params, {}, stage="x") == Params(vocab_size=64)
    assert resolve_params(Params, {}, stage="x", defaults={"vocab_size": 5}).vocab_size == 5
    assert resolve_params(Params, {"vocab_size": 7}, stage="x", defaults={"vocab_size": 5}).vocab_size == 7


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no parameter 'vocab_sise'") as caught:
        resolve_params(Params, {"vocab_sise": 7}, stage="x")
    assert caught.value.hint == "did you mean vocab_size?"


def test_an_unknown_word_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="layout") as caught:
        resolve_params(Params, {"layout": "pms"}, stage="x")
    assert caught.value.hint in {"did you mean psm?", "did you mean spm?"}


@pytest.mark.parametrize("value", [1, "many", None, float("nan"), [3]])
def test_a_wrong_value_names_the_parameter_and_the_value(value: object) -> None:
    with pytest.raises(UserError, match="vocab_size of the x stage is"):
        resolve_params(Params, {"vocab_size": value}, stage="x")
