"""A configuration is Hugging Face's, and one that cannot be run is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from workbench.decoder.config import DecoderConfig
from workbench.decoder.model import Decoder
from workbench.domain.errors import Corrupt, NotFound, UserError


def test_a_configuration_comes_back(decoder: Decoder, tmp_path: Path) -> None:
    decoder.config.save(tmp_path)
    assert DecoderConfig.load(tmp_path) == decoder.config
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["model_type"] == "llama"
    assert raw["num_hidden_layers"] == 2


def test_the_number_of_parameters_is_that_of_the_model(decoder: Decoder) -> None:
    for config in (decoder.config, replace(decoder.config, tie_word_embeddings=False)):
        assert sum(parameter.numel() for parameter in Decoder(config).parameters()) == config.num_parameters


def test_multiples_of_256_can_be_quantised(decoder: Decoder) -> None:
    assert not decoder.config.quantisable
    sizes = {"hidden_size": 256, "intermediate_size": 768, "head_dim": 64}
    assert replace(decoder.config, **sizes).quantisable
    assert not replace(decoder.config, **{**sizes, "intermediate_size": 700}).quantisable


@pytest.mark.parametrize(
    "change", [{"num_key_value_heads": 3}, {"head_dim": 7}, {"hidden_size": 0}, {"num_hidden_layers": -1}]
)
def test_sizes_that_do_not_fit_are_refused(decoder: Decoder, change: dict[str, int]) -> None:
    with pytest.raises(UserError):
        replace(decoder.config, **change)


@pytest.mark.parametrize("change", [{"model_type": "gemma"}, {"attention_bias": True}, {"rope_scaling": {"factor": 2}}])
def test_a_llama_that_we_cannot_run_is_refused_and_not_run_wrongly(decoder: Decoder, change: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(change))):
        DecoderConfig.from_json({**decoder.config.to_json(), **change})


def test_a_missing_or_broken_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        DecoderConfig.load(tmp_path)
    for text in ("{", "{}", '{"vocab_size": "many"}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(Corrupt):
            DecoderConfig.load(tmp_path)
