"""Train on a fixed sample, prove the round trip of every document, report. Not here: the bytes (``tokens.spm``)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache, partial, reduce
from itertools import chain
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import StageFailed, UserError
from workbench.domain.stage import StageResult
from workbench.ports.work import StageContext
from workbench.stages.tokenizer.params import TokenizerParams
from workbench.stages.tokenizer.report import Counts, figures
from workbench.tokens import documents, spm
from workbench.tokens.documents import Range
from workbench.tokens.tokenizer import MODEL_FILE, Tokenizer

FORMAT = 1
SPLITS = ("train", "validation", "test")


def run(context: StageContext) -> StageResult:
    """Leaves ``tokenizer.model``, ``tokenizer.json`` and ``report.json``."""
    params = TokenizerParams.model_validate(context.params)
    dataset = context.inputs["dataset"]
    model = _train(dataset, params, params.vocab_size, context.workers)
    path = context.output / MODEL_FILE
    path.write_bytes(model)
    tokenizer = Tokenizer.load(path)
    context.say(f"trained {tokenizer.vocab_size} tokens; now every document must come back exactly")
    by_split = {split: _prove(context, dataset, split, path) for split in SPLITS}
    whole = reduce(add, by_split.values())
    if not whole.tokens:
        raise UserError("the dataset has no text", "give a dataset with documents")
    byte_tokens = sorted(tokenizer.byte_tokens)
    report = figures(whole, byte_tokens)
    table = {
        "format": FORMAT,
        "vocab_size": tokenizer.vocab_size,
        "ids": dict(tokenizer.ids),
        "sha256": tokenizer.sha256,
    }
    (context.output / "tokenizer.json").write_bytes(canonical_lines(table))
    body = {
        "format": FORMAT,
        "vocab_size": tokenizer.vocab_size,
        "round_trip": 1.0,
        "corpus": report,
        "splits": {split: figures(counts, byte_tokens) for split, counts in by_split.items()},
        "sweep": [_sweep(dataset, params, size, context.workers) for size in params.sweep],
    }
    (context.output / "report.json").write_bytes(canonical_lines(body))
    named = ("bytes_per_token", "coverage", "byte_fallback_rate", "tokens_per_line", "renyi_efficiency")
    return StageResult(
        counts={"documents": whole.documents, "tokens": whole.tokens, "vocab_size": tokenizer.vocab_size},
        metrics={name: report[name] for name in named},
    )


def count(part: Range, model: Path) -> Counts:
    """Encode and decode each document of a range; stops at the first that does not come back."""
    tokenizer = _loaded(model)
    total = Counts(0, 0, 0, 0, 0, 0, np.zeros(tokenizer.vocab_size, np.int64))
    for document in documents.read(part):
        total += measure(tokenizer, document.id, document.text)
        if total.failure:
            break
    return total


def measure(tokenizer: Tokenizer, id: str, text: str) -> Counts:
    ids = tokenizer.encode(text)
    raw = text.encode()
    histogram = np.bincount(ids, minlength=tokenizer.vocab_size)
    fallback = b"".join(tokenizer.token_bytes[id] for id in ids if id in tokenizer.byte_tokens)
    return Counts(
        documents=1,
        bytes=len(raw),
        characters=len(text),
        words=len(text.split()),
        lines=text.count("\n") + 1,
        fallback_characters=sum(byte & 0xC0 != 0x80 for byte in fallback),
        histogram=histogram,
        failure="" if tokenizer.decode_bytes(ids) == raw else id,
    )


def sample(dataset: Path, limit_bytes: int) -> Iterator[str]:
    """Texts of the train split in its order (by content hash, so a fair sample), until they reach ``limit_bytes``."""
    left = limit_bytes
    for document in chain.from_iterable(map(documents.read, documents.ranges(documents.split_file(dataset, "train")))):
        left -= len(document.text.encode())
        yield document.text
        if left <= 0:
            return


def _train(dataset: Path, params: TokenizerParams, vocab_size: int, threads: int) -> bytes:
    return spm.train(
        sample(dataset, params.sample_bytes),
        vocab_size=vocab_size,
        character_coverage=params.character_coverage,
        longest_piece=params.longest_piece,
        threads=threads,
    )


def _prove(context: StageContext, dataset: Path, split: str, model: Path) -> Counts:
    parts = documents.ranges(documents.split_file(dataset, split))
    total = Counts(0, 0, 0, 0, 0, 0, np.zeros(_loaded(model).vocab_size, np.int64))
    started_s = time.monotonic()
    for counts in context.mapper.map(partial(count, model=model), parts):
        total += counts
        if total.failure:
            raise StageFailed(
                f"document {total.failure} of {split} does not survive encoding and decoding",
                "this is a bug of the tokenizer: report it with the document",
            )
        rate = total.bytes / 1e6 / max(time.monotonic() - started_s, 1e-9)
        context.progress(total.documents, unit=f"{split} documents", **{"MB/s": rate})
    return total


def _sweep(dataset: Path, params: TokenizerParams, vocab_size: int, threads: int) -> dict[str, Any]:
    """The figures that another size would have, over the validation split."""
    tokenizer = Tokenizer(_train(dataset, params, vocab_size, threads))
    parts = documents.ranges(documents.split_file(dataset, "validation"))
    zero = Counts(0, 0, 0, 0, 0, 0, np.zeros(tokenizer.vocab_size, np.int64))
    texts = chain.from_iterable(map(documents.read, parts))
    counts = reduce(add, (measure(tokenizer, document.id, document.text) for document in texts), zero)
    return {"vocab_size": vocab_size, **figures(counts, sorted(tokenizer.byte_tokens))}


@cache
def _loaded(model: Path) -> Tokenizer:
    return Tokenizer.load(model)
