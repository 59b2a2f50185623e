"""A model of one layer made on the spot and asked for one token, in each kind of weights: whether llama.cpp works here.

Its widths are those at which every kernel of llama.cpp for a kind of weights is taken, matrix units included; its
weights are random, so the token means nothing. Not here: what follows from a crash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from workbench.inference.quantise import quantise
from workbench.inference.trial import try_model

KINDS = ("F16", "Q8_0", "Q4_K_M")
WIDTH, INNER, HEADS, CONTEXT = 256, 512, 4, 64
_PLAIN = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
_VOCAB = 288  # a multiple of 32, filled up with words that nobody says
_UNKNOWN, _CONTROL, _BYTE, _NORMAL = 2, 3, 6, 1  # kinds of tokens


def prove(kind: str, folder: Path) -> int:
    """How many tokens a model of this kind answered: one, or none where it ended at once."""
    path = folder / "F16.gguf"
    write(path)
    if kind != "F16":
        quantise(path, folder / f"{kind}.gguf", kind, threads=1)
        path = folder / f"{kind}.gguf"
    return len(try_model(path))


def write(path: Path) -> None:
    """The model in F16."""
    writer = gguf.GGUFWriter(path, "llama")
    try:
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
        writer.add_context_length(CONTEXT)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(1)
        writer.add_feed_forward_length(INNER)
        writer.add_vocab_size(_VOCAB)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(HEADS)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_dimension_count(WIDTH // HEADS)
        _vocabulary(writer)
        for name, weight in _weights().items():
            writer.add_tensor(name, weight)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _vocabulary(writer: gguf.GGUFWriter) -> None:
    fill = [f"word{number}" for number in range(_VOCAB - len(_PLAIN))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*_PLAIN, *fill])
    writer.add_token_scores([0.0] * _VOCAB)
    writer.add_token_types([_UNKNOWN, _CONTROL, _CONTROL, *([_BYTE] * 256), *([_NORMAL] * len(fill))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def _weights() -> dict[str, Any]:
    draw = np.random.default_rng(1)
    shapes = {
        "token_embd": (_VOCAB, WIDTH),
        **{f"blk.0.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
        **{f"blk.0.ffn_{part}": (INNER, WIDTH) for part in ("gate", "up")},
        "blk.0.ffn_down": (WIDTH, INNER),
    }
    matrices = {name: draw.normal(0, 0.05, shape).astype(np.float16) for name, shape in shapes.items()}
    norms = {name: np.ones(WIDTH, np.float32) for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")}
    return {f"{name}.weight": weight for name, weight in (matrices | norms).items()}
