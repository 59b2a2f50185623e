"""A small held-out set, a tokenizer and a model with random weights: the real formats, in seconds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

VOCABULARY = 400
FUNCTIONS = """\
use std::fmt;

/// A point on a grid.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point{n} {{
    x: i64,
    y: i64,
}}

impl Point{n} {{
    pub fn length(&self) -> i64 {{
        let squares = self.x * self.x + self.y * self.y;
        squares + {n}
    }}
}}

pub fn double{n}(value: i64) -> i64 {{
    let doubled = value * 2 + {n};
    if doubled > 100 {{
        return doubled - 100;
    }}
    doubled
}}

pub fn describe{n}(name: &str) -> String {{
    let text = format!("{{name}} is number {n}");
    text.trim().to_string()
}}

pub fn foreign{n}(input: crate::parser::Input) -> anyhow::Result<()> {{
    input.consume({n})?;
    Ok(())
}}
"""


def document(number: int) -> dict[str, str]:
    text = FUNCTIONS.format(n=number)
    return {"id": hashlib.sha256(text.encode()).hexdigest(), "text": text}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    rows = sorted((document(number) for number in range(60)), key=lambda row: row["id"])
    for split, part in (("train", rows[:40]), ("validation", rows[40:]), ("test", rows[50:])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in part))
    return folder


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory, dataset: Path) -> Path:
    from workbench.tokens import spm

    folder = tmp_path_factory.mktemp("tokenizer")
    texts = (json.loads(line)["text"] for line in (dataset / "train.jsonl").read_text().splitlines())
    model = spm.train(texts, vocab_size=VOCABULARY, character_coverage=0.9995, longest_piece=8, threads=1)
    (folder / "tokenizer.model").write_bytes(model)
    return folder


def make_model(folder: Path, seed: int) -> Path:
    from workbench.decoder import weights
    from workbench.decoder.config import DecoderConfig
    from workbench.decoder.model import Decoder

    config = DecoderConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
    )
    decoder = Decoder(config)
    decoder.initialise(seed, scale=0.2)
    weights.save(decoder, folder)
    steps = [{"step": n, "loss": 6 - n / 20, "grad_norm": 1.0, "lr": 1e-3, "tokens": n * 100} for n in range(1, 60)]
    (folder / "training.jsonl").write_text("".join(json.dumps(step, sort_keys=True) + "\n" for step in steps))
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), seed=1)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("other"), seed=2)
