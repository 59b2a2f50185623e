"""Weights on disk: the same bytes for the same weights, under Hugging Face's names, and nothing else is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from workbench.decoder import weights
from workbench.decoder.model import Decoder
from workbench.domain.errors import Corrupt, NotFound


def test_a_decoder_comes_back_bit_for_bit(decoder: Decoder, tmp_path: Path) -> None:
    weights.save(decoder, tmp_path)
    loaded = weights.load(tmp_path)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids), decoder(ids))
    first = (tmp_path / "model.safetensors").read_bytes()
    weights.save(loaded, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == first


def test_names_are_hugging_faces_and_tied_weights_are_kept_once(decoder: Decoder, tmp_path: Path) -> None:
    weights.save(decoder, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert {"model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.weight", "model.norm.weight"} <= names
    assert "lm_head.weight" not in names
    assert len(names) == 2 + 2 * 9


def test_weights_that_do_not_fit_are_refused(decoder: Decoder, tmp_path: Path) -> None:
    weights.save(decoder, tmp_path)
    replace(decoder.config, intermediate_size=48).save(tmp_path)
    with pytest.raises(Corrupt):
        weights.load(tmp_path)
    decoder.config.save(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(Corrupt):
        weights.load(tmp_path)
    file.unlink()
    with pytest.raises(NotFound):
        weights.load(tmp_path)
