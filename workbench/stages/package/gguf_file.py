"""A model and its tokenizer as one GGUF file, byte-stable. Source: the GGUF specification and llama.cpp's converter.

Training uses Hugging Face's rotate-half RoPE and llama.cpp rotates neighbours, so the rows of q and k are permuted.
Norms stay in F32. Not here: quantisation, which is llama.cpp's own (the ``ModelLoader`` port).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors import SafetensorError, safe_open

from workbench.decoder.config import DecoderConfig
from workbench.domain.errors import Corrupt, StageFailed
from workbench.domain.tokens import (
    BEGIN,
    END,
    FILE_SEPARATOR,
    FIM_MIDDLE,
    FIM_PREFIX,
    FIM_SUFFIX,
    PAD,
    UNKNOWN,
)
from workbench.tokens.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
_LAYER_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_FILE_TYPES = {"F32": (gguf.LlamaFileType.ALL_F32, np.float32), "F16": (gguf.LlamaFileType.MOSTLY_F16, np.float16)}


@dataclass(frozen=True)
class Provenance:
    """What stands in the file about where it comes from: digests, never a time or a place."""

    license: str
    digests: Mapping[str, str] = field(default_factory=dict)  # model, tokenizer, dataset -> sha256
    datasets: Sequence[tuple[str, str]] = ()  # packages of the training data: (name, version)


def write(path: Path, *, model: Path, tokenizer: Tokenizer, name: str, kind: str, provenance: Provenance) -> None:
    """Write the model in folder ``model`` as ``kind`` (F32 or F16). Corrupt when a weight is missing or unknown."""
    config = DecoderConfig.load(model)
    file_type, dtype = _FILE_TYPES[kind]
    writer = gguf.GGUFWriter(path, "llama")
    try:
        _general(writer, name, provenance)
        writer.add_file_type(file_type)
        _shape(writer, config)
        _tokenizer(writer, tokenizer)
        _weights(writer, model / WEIGHTS, config, dtype)
    finally:
        writer.close()


def tensor_names(config: DecoderConfig) -> Iterator[tuple[str, str]]:
    """(name in GGUF, Hugging Face's name), in the order of the file."""
    yield "token_embd.weight", "model.embed_tokens.weight"
    for layer in range(config.num_hidden_layers):
        for theirs, ours in _LAYER_TENSORS.items():
            yield f"blk.{layer}.{ours}.weight", f"model.layers.{layer}.{theirs}.weight"
    yield "output_norm.weight", "model.norm.weight"
    if not config.tie_word_embeddings:
        yield "output.weight", "lm_head.weight"


def permute(rows: Any, heads: int) -> Any:
    """Rows of q or k from rotate-half order to neighbour order, head by head."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _general(writer: gguf.GGUFWriter, name: str, provenance: Provenance) -> None:
    writer.add_name(name)
    writer.add_license(provenance.license)
    for what, digest in sorted(provenance.digests.items()):
        writer.add_string(f"workbench.{what}.sha256", digest)
    if provenance.datasets:
        writer.add_dataset_count(len(provenance.datasets))
    for index, (package, version) in enumerate(provenance.datasets):
        writer.add_dataset_name(index, package)
        writer.add_dataset_version(index, version)


def _shape(writer: gguf.GGUFWriter, config: DecoderConfig) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_vocab_size(config.vocab_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)


def _tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """Every document is ``<s> … </s>``, so prompts begin with ``<s>`` and never end with ``</s>``."""
    from sentencepiece import sentencepiece_model_pb2

    pieces = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.model).pieces
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([piece.piece for piece in pieces])
    writer.add_token_scores([float(piece.score) for piece in pieces])
    writer.add_token_types([int(piece.type) for piece in pieces])  # SentencePiece's numbers are llama.cpp's
    ids = tokenizer.ids
    writer.add_bos_token_id(ids[BEGIN])
    writer.add_eos_token_id(ids[END])
    writer.add_unk_token_id(ids[UNKNOWN])
    writer.add_pad_token_id(ids[PAD])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    for key, token in (("pre", FIM_PREFIX), ("suf", FIM_SUFFIX), ("mid", FIM_MIDDLE), ("sep", FILE_SEPARATOR)):
        writer.add_uint32(f"tokenizer.ggml.fim_{key}_token_id", ids[token])


def _weights(writer: gguf.GGUFWriter, path: Path, config: DecoderConfig, dtype: Any) -> None:
    """One tensor in memory at a time."""
    try:
        with safe_open(path, framework="np") as file:
            present, wanted = set(file.keys()), list(tensor_names(config))
            if present != {theirs for _, theirs in wanted}:
                odd = sorted(present ^ {theirs for _, theirs in wanted})
                raise Corrupt(f"{path.name} does not hold what its config.json says: {', '.join(odd[:4])}")
            for ours, theirs in wanted:
                shape = file.get_slice(theirs).get_shape()
                kind = np.dtype(np.float32 if len(shape) == 1 else dtype)
                writer.add_tensor_info(ours, shape, kind, int(np.prod(shape)) * kind.itemsize)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for ours, theirs in wanted:
                weight = _converted(ours, file.get_tensor(theirs), config, dtype)
                if not np.isfinite(weight).all():
                    raise StageFailed(
                        f"{theirs} holds values that are not numbers, or too large for {np.dtype(dtype).name}",
                        "train again with a smaller learning rate",
                    )
                writer.write_tensor_data(weight)
    except SafetensorError as error:
        raise Corrupt(f"{path.name} cannot be read: {error}", "train or fetch the model again") from error


def _converted(name: str, weight: Any, config: DecoderConfig, dtype: Any) -> Any:
    if weight.ndim == 1:
        return weight.astype(np.float32)
    if name.endswith("attn_q.weight"):
        weight = permute(weight, config.num_attention_heads)
    if name.endswith("attn_k.weight"):
        weight = permute(weight, config.num_key_value_heads)
    return np.ascontiguousarray(weight.astype(dtype))
