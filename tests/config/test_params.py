"""A wrong parameter is answered with the nearest right one."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from workbench.config.params import parse, resolve
from workbench.domain.errors import UserError


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    vocab_size: int = Field(64, ge=2)
    layout: Literal["psm", "spm"] = "psm"


def test_what_is_given_wins_over_the_model() -> None:
    assert parse(Params, {}, stage="x").vocab_size == 64
    assert resolve(Params, {"vocab_size": 7}, stage="x") == {"vocab_size": 7, "layout": "psm"}


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no parameter 'vocab_sise'") as caught:
        parse(Params, {"vocab_sise": 7}, stage="x")
    assert "vocab_size" in caught.value.hint


@pytest.mark.parametrize("value", [1, "many", None, float("nan"), [3]])
def test_a_wrong_value_names_the_parameter(value: object) -> None:
    with pytest.raises(UserError, match="vocab_size"):
        parse(Params, {"vocab_size": value}, stage="x")


def test_an_unknown_word_names_what_is_allowed() -> None:
    with pytest.raises(UserError, match="psm"):
        parse(Params, {"layout": "pms"}, stage="x")
