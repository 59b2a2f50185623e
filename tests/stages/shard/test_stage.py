"""S5: every token of every document is in the shards, and where it stands depends on the document alone."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.app.stage_host import run_in_process
from workbench.corpus import dataset
from workbench.corpus.document import Document
from workbench.domain.errors import Corrupt, NotFound, UserError
from workbench.domain.stage import StageResult
from workbench.domain.tokens import BEGIN, END, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX
from workbench.stages.shard import stage
from workbench.stages.shard.spec import SPEC
from workbench.tokens import documents, spm
from workbench.tokens.fim import decode_document
from workbench.tokens.shards import ShardIndex
from workbench.tokens.tokenizer import Tokenizer

Shard = Callable[..., Path]
CONTEXT = 32


def functions(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    words = ["value", "index", "buffer", "state", "token", "next_row", "étage", "Vec", "Option", "self", "日本", "🦀"]
    return [
        f"fn {draw.choice(words)}_{seed}_{number}() {{\n"
        + "".join(f"\tlet {draw.choice(words)} = {draw.randrange(99)};\n" for _ in range(draw.randrange(1, 20)))
        + "}\n"
        for number in range(count)
    ]


SPLITS = {"train": functions(60, 1), "validation": functions(12, 2), "test": functions(9, 3)}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    model = spm.train(SPLITS["train"], vocab_size=400, character_coverage=0.999, longest_piece=16)
    (folder / "tokenizer.model").write_bytes(model)
    return folder


def write_dataset(folder: Path, splits: Mapping[str, Sequence[str]]) -> Path:
    folder.mkdir(parents=True)
    for split in dataset.SPLITS:
        made = [Document.of(text, path="a-1/x.rs", package="a-1", license="MIT") for text in splits.get(split, ())]
        dataset.write_split(folder, split, sorted(made, key=lambda document: document.id))
    return folder


@pytest.fixture
def shard(tmp_path: Path, tokenizer: Path) -> Shard:
    """``shard(splits, …)``: the payload."""

    def shard(
        splits: Mapping[str, Sequence[str]] = SPLITS, into: str = "a", workers: int = 1, seed: int = 0, **params: Any
    ) -> Path:
        inputs = {"dataset": write_dataset(tmp_path / f"dataset-{into}", splits), "tokenizer": tokenizer}
        output = tmp_path / "payloads" / into
        given = {"context": CONTEXT, **params}
        shard.result = run_in_process(  # type: ignore[attr-defined]
            SPEC, stage.run, inputs=inputs, output=output, params=given, seed=seed, workers=workers
        )
        return output

    return shard


def payload(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def in_order(texts: Sequence[str]) -> list[str]:
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode()).hexdigest())


def rows_of(folder: Path, split: str) -> list[list[int]]:
    """All rows of a split, read by the index's own words."""
    index = json.loads((folder / "index.json").read_bytes())
    about = index["splits"][split]
    data = b"".join((folder / file["name"]).read_bytes() for file in about["files"])
    ids = np.frombuffer(data, {"uint16": "<u2", "uint32": "<u4"}[index["dtype"]]).reshape(-1, index["context"])
    assert len(ids) == about["rows"]
    assert about["tokens"] == np.count_nonzero(ids != index["pad"])
    return [row[row != index["pad"]].tolist() for row in ids]


def stream(folder: Path, split: str, tokenizer: Path) -> list[int]:
    """What is not rearranged: the beginnings of the rows, one after the other."""
    return [id for row in rows_of(folder, split) for id in row[: _first_span(row, Tokenizer.load(tokenizer))]]


def spans_of(folder: Path, split: str, tokenizer: Path) -> list[list[int]]:
    loaded = Tokenizer.load(tokenizer)
    return [span for row in rows_of(folder, split) for span in parts(row[_first_span(row, loaded) :], loaded)]


def _first_span(row: Sequence[int], tokenizer: Tokenizer) -> int:
    pair = (tokenizer.ids[BEGIN], tokenizer.ids[FIM_PREFIX])
    return next((at for at in range(len(row)) if tuple(row[at : at + 2]) == pair), len(row))


def parts(ids: Sequence[int], tokenizer: Tokenizer) -> list[list[int]]:
    """From ``<s>`` to ``</s>``."""
    found: list[list[int]] = []
    for id in ids:
        if id == tokenizer.ids[BEGIN]:
            found.append([])
        found[-1].append(id)
    assert all(part[-1] == tokenizer.ids[END] for part in found)
    return found


@pytest.mark.parametrize("params", [{}, {"fim_rate": 0.0}, {"fim_rate": 1.0}, {"fim_spm_rate": 1.0, "fim_window": 40}])
def test_every_document_comes_back_from_the_shards(shard: Shard, tokenizer: Path, params: dict[str, Any]) -> None:
    folder = shard(**params)
    loaded = Tokenizer.load(tokenizer)
    for split, texts in SPLITS.items():
        plain = decode_document(loaded, stream(folder, split, tokenizer))
        spans = [decode_document(loaded, span) for span in spans_of(folder, split, tokenizer)]
        as_they_are = [text for text in in_order(texts) if text in plain]
        rearranged = [text for text in in_order(texts) if text not in plain]
        assert plain == "".join(as_they_are)
        assert Counter("".join(spans)) == Counter("".join(rearranged))
        assert all(any(span in text for text in rearranged) for span in spans)


def test_only_documents_of_train_are_rearranged_about_as_many_as_asked_for(shard: Shard, tokenizer: Path) -> None:
    loaded = Tokenizer.load(tokenizer)
    control = {loaded.ids[name] for name in (FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE)}
    many = {**SPLITS, "train": functions(600, 4)}
    folder = shard(many, context=1024, fim_rate=0.5, fim_spm_rate=0.5, fim_window=1 << 16)
    arranged = spans_of(folder, "train", tokenizer)
    as_they_are = parts(stream(folder, "train", tokenizer), loaded)
    assert all(control <= set(span) for span in arranged)
    assert not any(control & set(part) for part in as_they_are)
    assert len(arranged) + len(as_they_are) == 600  # a window holds a whole document
    assert 250 < len(arranged) < 350
    psm = sum(span.index(loaded.ids[FIM_SUFFIX]) > 2 or span[2] != loaded.ids[FIM_SUFFIX] for span in arranged)
    assert 0.4 < psm / len(arranged) < 0.6
    for split in ("validation", "test"):
        assert not control & {id for row in rows_of(folder, split) for id in row}
    assert shard.result.counts["fim_documents"] == len(arranged)  # type: ignore[attr-defined]
    assert json.loads((folder / "index.json").read_bytes())["fim"]["documents"] == len(arranged)


def test_the_bytes_are_the_same_for_any_number_of_workers(shard: Shard) -> None:
    large = {**SPLITS, "train": functions(9000, 5)}
    assert sum(len(text.encode()) for text in large["train"]) > documents.RANGE_BYTES
    assert payload(shard(large, "one", 1)) == payload(shard(large, "three", 3))


def test_a_document_is_arranged_the_same_whatever_stands_beside_it(shard: Shard, tokenizer: Path) -> None:
    loaded = Tokenizer.load(tokenizer)

    def of(folder: Path) -> set[tuple[int, ...]]:
        plain = parts(stream(folder, "train", tokenizer), loaded)
        return {tuple(part) for part in [*plain, *spans_of(folder, "train", tokenizer)]}

    alone = of(shard({"train": SPLITS["train"][:20]}, "few"))
    assert alone <= of(shard({"train": [*functions(40, 8), *SPLITS["train"]]}, "many"))


def test_another_seed_or_epoch_arranges_anew_and_loses_nothing(shard: Shard, tokenizer: Path) -> None:
    loaded = Tokenizer.load(tokenizer)

    def of(folder: Path) -> Counter[tuple[int, ...]]:
        plain = parts(stream(folder, "train", tokenizer), loaded)
        return Counter(map(tuple, [*plain, *spans_of(folder, "train", tokenizer)]))

    def text(found: Counter[tuple[int, ...]]) -> Counter[str]:
        return Counter("".join(decode_document(loaded, list(part)) for part in found.elements()))

    one, other = of(shard(into="0")), of(shard(into="1", seed=1))
    assert one != other
    assert text(one) == text(other)
    folder = shard(into="twice", epochs=2)
    twice = of(folder)
    assert one <= twice
    assert twice - one != one
    assert text(twice) == text(one) + text(one)
    assert rows_of(folder, "test") == rows_of(shard(into="once"), "test")


def test_files_are_cut_by_size_in_whole_rows(shard: Shard) -> None:
    folder = shard(shard_bytes=1024)
    index = ShardIndex.load(folder)
    for split, about in index.splits.items():
        sizes = [(folder / file.name).stat().st_size for file in about.files]
        assert [file.name for file in about.files] == [f"{split}-{number:05d}.bin" for number in range(len(sizes))]
        assert sizes[:-1] == [1024] * (len(sizes) - 1)
        assert 0 < sizes[-1] <= 1024
        assert all(size % (CONTEXT * 2) == 0 for size in sizes)
        assert [hashlib.sha256((folder / f.name).read_bytes()).hexdigest() for f in about.files] == [
            f.sha256 for f in about.files
        ]
    assert len(index.splits["train"].files) > 3
    whole = shard(into="whole")
    assert [rows_of(whole, split) for split in SPLITS] == [rows_of(folder, split) for split in SPLITS]


def test_the_index_counts_what_there_is(shard: Shard, tokenizer: Path) -> None:
    folder = shard(seed=7)
    index = ShardIndex.load(folder)
    assert (index.vocab_size, index.context, index.dtype) == (400, CONTEXT, np.dtype("<u2"))
    assert index.tokenizer == hashlib.sha256((tokenizer / "tokenizer.model").read_bytes()).hexdigest()
    assert index.fim["seed"] == 7
    result: StageResult = shard.result  # type: ignore[attr-defined]
    for split, texts in SPLITS.items():
        about = index.splits[split]
        assert about.documents == len(texts)
        assert about.bytes == sum(len(text.encode()) for text in texts)
        assert result.counts[f"{split}_tokens"] == about.tokens
        assert result.counts[f"{split}_rows"] == about.rows >= -(-about.tokens // CONTEXT)
    assert sorted(payload(folder)) == sorted(
        ["index.json", *(file.name for about in index.splits.values() for file in about.files)]
    )


def test_what_cannot_be_sharded_is_answered_with_what_to_do(shard: Shard, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train split has no documents"):
        shard({"validation": ["fn a() {}\n"]}, "empty")
    source = write_dataset(tmp_path / "dataset", SPLITS)

    def attempt(dataset_folder: Path, tokenizer_folder: Path) -> None:
        inputs = {"dataset": dataset_folder, "tokenizer": tokenizer_folder}
        run_in_process(SPEC, stage.run, inputs=inputs, output=tmp_path / "output", params={})

    (tmp_path / "none").mkdir()
    with pytest.raises(NotFound, match="no tokenizer at"):
        attempt(source, tmp_path / "none")
    with pytest.raises(NotFound, match=r"no train\.jsonl"):
        attempt(tmp_path / "none", tokenizer)
    (tmp_path / "none" / "tokenizer.model").write_bytes(b"garbage")
    with pytest.raises(Corrupt, match="tokenizer model cannot be read"):
        attempt(source, tmp_path / "none")
    (source / "train.jsonl").write_bytes(b'{"id": "a"}\n')
    with pytest.raises(Corrupt, match=r"train\.jsonl at byte 0"):
        attempt(source, tokenizer)


@pytest.mark.parametrize(
    "params", [{"context": 1}, {"fim_rate": 1.5}, {"epochs": 0}, {"shard_bytes": 10}, {"fim_windows": 9}]
)
def test_a_wrong_parameter_is_refused_when_it_is_planned(params: dict[str, object]) -> None:
    with pytest.raises(UserError, match="shard stage"):
        SPEC.resolve(1, params)


def test_the_window_follows_the_context_unless_it_is_given() -> None:
    assert SPEC.resolve(1, {"context": 1000})["fim_window"] == 1500
    assert SPEC.resolve(1, {"context": 1000, "fim_window": 64})["fim_window"] == 64
