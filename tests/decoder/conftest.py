"""A decoder of a few thousand weights, large enough in scale that every part of it shows in the logits."""

from __future__ import annotations

import pytest

from workbench.decoder.config import DecoderConfig
from workbench.decoder.model import Decoder

CONFIG = DecoderConfig(
    vocab_size=61,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=6,
    max_position_embeddings=32,
)


@pytest.fixture
def decoder() -> Decoder:
    made = Decoder(CONFIG)
    made.initialise(1, scale=0.3)
    return made.eval()
