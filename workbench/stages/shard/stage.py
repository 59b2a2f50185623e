"""Encode in parallel, write in order: the same bytes for any number of workers. Only the train split is rearranged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.domain.errors import UserError
from workbench.domain.stage import StageResult
from workbench.domain.tokens import BEGIN, END, PAD
from workbench.ports.work import StageContext
from workbench.stages.shard.params import ShardParams
from workbench.tokens import documents
from workbench.tokens.documents import Range
from workbench.tokens.fim import Draws, FimPolicy, encode_document, encode_spans
from workbench.tokens.shards import ShardIndex, ShardWriter, SplitIndex
from workbench.tokens.tokenizer import Tokenizer

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Encoded:
    """The ids of a range: of the documents that stay as they are, one after the other, and of the others' spans."""

    plain: npt.NDArray[np.uint32]
    spans: Sequence[npt.NDArray[np.uint32]]
    documents: int
    bytes: int
    rearranged: int


def run(context: StageContext) -> StageResult:
    """Leaves ``<split>-00000.bin …`` and ``index.json``."""
    params = ShardParams.model_validate(context.params)
    tokenizer = Tokenizer.load(context.inputs["tokenizer"])
    begin, end, pad = (tokenizer.ids[name] for name in (BEGIN, END, PAD))
    index = ShardIndex(tokenizer.vocab_size, params.context, pad, begin, end, tokenizer.sha256, {})
    splits: dict[str, SplitIndex] = {}
    rearranged = 0
    for split in SPLITS:
        splits[split], number = _write(context, params, index, split)
        rearranged += number
    if not splits["train"].rows:
        raise UserError("the dataset's train split has no documents", "give a larger dataset")
    fim = {
        "rate": params.fim_rate,
        "spm_rate": params.fim_spm_rate,
        "window": params.fim_window,
        "seed": context.seed,
        "documents": rearranged,
    }
    replace(index, splits=splits, fim=fim).save(context.output)
    return StageResult(
        counts={
            f"{split}_{what}": getattr(found, what) for split, found in splits.items() for what in ("tokens", "rows")
        }
        | {"fim_documents": rearranged},
    )


def encode(task: tuple[int, Range], *, tokenizer: Path, seed: int, policy: FimPolicy, context: int) -> Encoded:
    """The documents of one range in one epoch. A function of its arguments alone."""
    epoch, part = task
    loaded = _loaded(tokenizer)
    plain: list[int] = []
    arranged: list[npt.NDArray[np.uint32]] = []
    number = size_bytes = rearranged = 0
    for document in documents.read(part):
        spans = encode_spans(loaded, document.text, policy, Draws(seed, document.id, epoch), context)
        if spans is None:
            plain += encode_document(loaded, document.text)
        else:
            arranged += [np.array(ids, np.uint32) for ids in spans]
        number += 1
        size_bytes += len(document.text.encode())
        rearranged += spans is not None
    return Encoded(np.array(plain, np.uint32), arranged, number, size_bytes, rearranged)


def _write(context: StageContext, params: ShardParams, index: ShardIndex, split: str) -> tuple[SplitIndex, int]:
    """Write one split; its index and how many documents were rearranged."""
    row_bytes = params.context * index.dtype.itemsize
    writer = ShardWriter(context.output, split, index, rows_per_file=max(1, params.shard_bytes // row_bytes))
    rearranged = total_bytes = 0
    started_s = time.monotonic()
    for encoded in _encode_all(context, params, split):
        writer.add(encoded.plain, encoded.spans, documents=encoded.documents, size_bytes=encoded.bytes)
        rearranged += encoded.rearranged
        total_bytes += encoded.bytes
        rate = total_bytes / 1e6 / max(time.monotonic() - started_s, 1e-9)
        context.progress(total_bytes / 1e6, unit=f"MB of {split}", **{"MB/s": rate})
    return writer.finish(), rearranged


def _encode_all(context: StageContext, params: ShardParams, split: str) -> Iterator[Encoded]:
    train = split == "train"
    policy = FimPolicy(params.fim_rate if train else 0.0, params.fim_spm_rate, params.fim_window)
    parts = documents.ranges(documents.split_file(context.inputs["dataset"], split))
    work: Any = partial(
        encode, tokenizer=context.inputs["tokenizer"], seed=context.seed, policy=policy, context=params.context
    )
    return context.mapper.map(work, product(range(params.epochs if train else 1), parts))


@cache
def _loaded(tokenizer: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer)
