"""A small fixed corpus and a tokenizer of it; built once."""

from __future__ import annotations

import random

import pytest

from workbench.tokens import spm
from workbench.tokens.tokenizer import Tokenizer


def rust_like(number: int, seed: int = 1) -> list[str]:
    """Documents that look like Rust, the same on every machine: golden digests stand on them."""
    draw = random.Random(seed)
    names = ["value", "index", "buffer", "state", "token", "next_row", "étage", "from_utf8", "Vec", "Option"]
    documents = []
    for count in range(number):
        lines = [f"use crate::{draw.choice(names)}::{{{draw.choice(names)}, self}};", ""]
        for _ in range(draw.randrange(1, 6)):
            a, b = draw.sample(names, 2)
            lines += [
                f"    /// Gives the {a} of {b} № {draw.randrange(1000)}.",
                f"    pub fn {a}_{count}(&self, {b}: usize) -> Option<u32> {{",
                f"\tlet {a} = self.{b}.get({b} + {draw.randrange(100)})?;",
                f'        println!("{a}: {{:?}}", {a}); // 日本 🦀'
                if draw.random() < 0.2
                else f"        {a} << 0x{b[0]}f",
                "    }",
            ]
        documents.append("\n".join(lines) + "\n")
    return documents


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    return rust_like(60)


@pytest.fixture(scope="session")
def tokenizer(corpus: list[str]) -> Tokenizer:
    return Tokenizer(spm.train(corpus, vocab_size=448, character_coverage=0.999, longest_piece=16))
