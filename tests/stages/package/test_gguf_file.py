"""The GGUF that we write, read back by gguf's own reader, which shares no code with our writer or header check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

from workbench.decoder.config import DecoderConfig
from workbench.stages.package import gguf_file
from workbench.tokens.tokenizer import Tokenizer


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    reader = gguf.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    return keys, {tensor.name: tensor for tensor in reader.tensors}


@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_every_tensor_reads_back_as_it_was_trained(tiny: Any, kind: str) -> None:
    config, weights = DecoderConfig.load(tiny.model), load_file(tiny.model / "model.safetensors")
    _, tensors = read(tiny.f32 if kind == "F32" else tiny.f16)
    names = dict(gguf_file.tensor_names(config))
    assert set(tensors) == set(names)
    for ours, theirs in names.items():
        expected = weights[theirs]
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(ours.split(".")[-2])
        if heads:  # head by head, pair i of the first and second half become neighbours
            expected = np.concatenate(
                [np.stack(np.split(head, 2), axis=1).reshape(head.shape) for head in np.split(expected, heads)]
            )
        if kind == "F16" and expected.ndim > 1:
            expected = expected.astype(np.float16)
        assert np.array_equal(tensors[ours].data, expected), ours


def test_the_keys_are_those_that_llama_cpp_asks_for(tiny: Any) -> None:
    keys, _ = read(tiny.f16)
    expected = {
        "general.architecture": "llama",
        "general.license": "MIT",
        "general.dataset.0.name": "alpha",
        "workbench.model.sha256": "0" * 64,
        "llama.context_length": 256,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 64,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }
    assert {key: keys[key] for key in expected} == expected


def test_fill_in_the_middle_ids_stand_in_the_file(tiny: Any) -> None:
    keys, _ = read(tiny.f16)
    ids = Tokenizer.load(tiny.tokenizer).ids
    for key, token in {"pre": "<|fim_prefix|>", "suf": "<|fim_suffix|>", "mid": "<|fim_middle|>"}.items():
        assert keys[f"tokenizer.ggml.fim_{key}_token_id"] == ids[token]


def test_pieces_scores_and_types_are_sentencepiece_s(tiny: Any) -> None:
    keys, _ = read(tiny.f16)
    tokenizer = Tokenizer.load(tiny.tokenizer)
    assert keys["tokenizer.ggml.tokens"] == [tokenizer.piece(id) for id in range(416)]
    assert keys["tokenizer.ggml.token_type"][: len(tokenizer.ids)].count(3) >= 3
    assert len(keys["tokenizer.ggml.scores"]) == 416


def test_writing_twice_gives_the_same_bytes(tiny: Any, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(tiny.tokenizer)
    provenance = gguf_file.Provenance("MIT", {"model": "0" * 64}, [("alpha", "1.0.0")])
    path = tmp_path / "again.gguf"
    gguf_file.write(path, model=tiny.model, tokenizer=tokenizer, name="tiny", kind="F16", provenance=provenance)
    assert path.read_bytes() == tiny.f16.read_bytes()
