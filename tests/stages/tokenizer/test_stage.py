"""S4: a tokenizer that loses nothing, the same bytes for everyone, and figures that can be counted again."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from workbench.app.stage_host import HostContext, Step, run_in_process
from workbench.corpus import dataset
from workbench.corpus.document import Document
from workbench.domain.errors import NotFound, StageFailed, UserError
from workbench.domain.events import Progress
from workbench.domain.tokens import BEGIN, CONTROL, END, PAD, UNKNOWN
from workbench.stages.tokenizer import stage
from workbench.stages.tokenizer.report import figures
from workbench.stages.tokenizer.spec import SPEC
from workbench.tokens import documents
from workbench.tokens.tokenizer import Tokenizer

WORDS = ["value", "index", "buffer", "state", "token", "next_row", "étage", "from_utf8", "Vec", "Option", "self"]
Tokenize = Callable[..., Path]


def functions(count: int, seed: int) -> list[str]:
    """Texts that look like Rust, with indents, tabs, digits and some characters that are rare."""
    draw = random.Random(seed)
    texts = []
    for number in range(count):
        lines = [f"\tlet {draw.choice(WORDS)}_{n} = {draw.choice(WORDS)}({draw.randrange(999)});" for n in range(8)]
        rare = f"    // {chr(0x4E00 + draw.randrange(4000))} 🦀\n" if draw.random() < 0.3 else ""
        body = "\n".join(lines)
        texts.append(f"pub fn {draw.choice(WORDS)}_{seed}_{number}() {{\n{body}\n{rare}}}\n")
    return texts


SPLITS = {"train": functions(120, 1), "validation": functions(20, 2), "test": functions(20, 3)}


def write_dataset(folder: Path, splits: Mapping[str, Sequence[str]]) -> Path:
    folder.mkdir(parents=True)
    for split in dataset.SPLITS:
        made = [Document.of(text, path="a-1/x.rs", package="a-1", license="MIT") for text in splits.get(split, ())]
        dataset.write_split(folder, split, sorted(made, key=lambda document: document.id))
    dataset.write_schema(folder)
    return folder


def payload(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_bytes())
    return found


@pytest.fixture
def tokenize(tmp_path: Path) -> Tokenize:
    """``tokenize(splits, …)``: the payload."""

    def tokenize(
        splits: Mapping[str, Sequence[str]] = SPLITS, into: str = "a", workers: int = 1, **params: Any
    ) -> Path:
        source = write_dataset(tmp_path / f"dataset-{into}", splits)
        output = tmp_path / "payloads" / into
        sizes = {"vocab_size": 420, "sample_bytes": 1 << 20, "character_coverage": 0.98, **params}
        run_in_process(SPEC, stage.run, inputs={"dataset": source}, output=output, params=sizes, workers=workers)
        return output

    return tokenize


def test_the_payload_is_the_model_a_table_of_its_control_tokens_and_a_report(tokenize: Tokenize) -> None:
    output = tokenize()
    assert list(payload(output)) == ["report.json", "tokenizer.json", "tokenizer.model"]
    table = json.loads((output / "tokenizer.json").read_bytes())
    raw = sentencepiece.SentencePieceProcessor(model_file=str(output / "tokenizer.model"))
    assert table["ids"] == {name: raw.PieceToId(name) for name in (UNKNOWN, BEGIN, END, PAD, *CONTROL)}
    assert (table["format"], table["vocab_size"]) == (1, raw.GetPieceSize())
    assert table["sha256"] == hashlib.sha256((output / "tokenizer.model").read_bytes()).hexdigest()
    assert all(raw.IsByte(raw.PieceToId(f"<0x{byte:02X}>")) for byte in range(256))


def test_the_bytes_are_the_same_whatever_the_number_of_workers_and_the_folder(
    tokenize: Tokenize, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    large = {**SPLITS, "train": functions(5000, 1)}
    assert sum(map(len, large["train"])) > documents.RANGE_BYTES  # so that there is something to spread
    first = payload(tokenize(large, "one", 1))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert payload(tokenize(large, "three", 3)) == first
    assert os.listdir(tmp_path / "elsewhere") == []


def test_every_document_of_every_split_is_proven_to_come_back(tokenize: Tokenize) -> None:
    output = tokenize()
    found = report(output)
    assert found["round_trip"] == 1.0
    assert found["corpus"]["documents"] == sum(len(texts) for texts in SPLITS.values())
    assert {split: figures["documents"] for split, figures in found["splits"].items()} == {
        split: len(texts) for split, texts in SPLITS.items()
    }
    tokenizer = Tokenizer.load(output)
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for texts in SPLITS.values() for text in texts)


def test_the_figures_are_those_that_anyone_counts_again(tokenize: Tokenize) -> None:
    output = tokenize()
    raw = sentencepiece.SentencePieceProcessor(model_file=str(output / "tokenizer.model"))
    texts = [text for split in SPLITS.values() for text in split]
    encoded = [raw.EncodeAsIds(text) for text in texts]
    uses = Counter(id for ids in encoded for id in ids)
    tokens, characters = sum(uses.values()), sum(map(len, texts))
    of_text = [id for id in range(raw.GetPieceSize()) if not (raw.IsByte(id) or raw.IsControl(id) or raw.IsUnknown(id))]
    known = {char for id in of_text for char in raw.IdToPiece(id)} | {" "}
    unknown = sum(char not in known for text in texts for char in text)
    assert unknown, "the test needs characters outside the vocabulary"
    bytes_used = sum(number for id, number in uses.items() if raw.IsByte(id))
    entropy = -sum(number / tokens * math.log2(number / tokens) for number in uses.values())
    power = sum((number / tokens) ** 2.5 for number in uses.values())
    found = report(output)["corpus"]
    assert found == {
        "documents": len(texts),
        "bytes": sum(len(text.encode()) for text in texts),
        "tokens": tokens,
        "coverage": pytest.approx(1 - unknown / characters, abs=1e-6),
        "byte_fallback_rate": pytest.approx(bytes_used / tokens, abs=1e-6),
        "entropy_bits": pytest.approx(entropy, abs=1e-6),
        "entropy_efficiency": pytest.approx(entropy / math.log2(420), abs=1e-6),
        "renyi_efficiency": pytest.approx(math.log2(power) / -1.5 / math.log2(420), abs=1e-6),
        "tokens_per_word": pytest.approx(tokens / sum(len(text.split()) for text in texts), abs=1e-6),
        "tokens_per_line": pytest.approx(tokens / sum(text.count("\n") + 1 for text in texts), abs=1e-6),
        "bytes_per_token": pytest.approx(sum(len(text.encode()) for text in texts) / tokens, abs=1e-6),
        "vocabulary_used": pytest.approx(len(uses) / 420, abs=1e-6),
        "vocabulary_used_100_times": pytest.approx(sum(n >= 100 for n in uses.values()) / 420, abs=1e-6),
    }


def test_the_figures_of_an_empty_split_are_zero_not_an_error(tokenize: Tokenize) -> None:
    found = report(tokenize({"train": SPLITS["train"]}))["splits"]["test"]
    assert {name: value for name, value in found.items() if value} == {}


def test_the_vocabulary_is_learnt_from_the_beginning_of_the_train_split_alone(tokenize: Tokenize) -> None:
    model = (tokenize(SPLITS, "whole") / "tokenizer.model").read_bytes()
    other = {**SPLITS, "validation": functions(30, 9), "test": ["zqzqzqzq " * 500]}
    assert (tokenize(other, "other") / "tokenizer.model").read_bytes() == model
    ordered = sorted(SPLITS["train"], key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    limit, first = 4096, []
    while sum(len(text.encode()) for text in first) < limit:
        first.append(ordered[len(first)])
    head = (tokenize(SPLITS, "head", sample_bytes=limit) / "tokenizer.model").read_bytes()
    assert head != model
    assert (tokenize({"train": first}, "first") / "tokenizer.model").read_bytes() == head


def test_the_sweep_tells_what_other_sizes_would_give_and_changes_nothing_else(tokenize: Tokenize) -> None:
    plain, swept = tokenize(SPLITS, "plain"), tokenize(SPLITS, "swept", sweep=(340, 420))
    assert (plain / "tokenizer.model").read_bytes() == (swept / "tokenizer.model").read_bytes()
    found = report(swept)
    small, same = found["sweep"]
    assert [row["vocab_size"] for row in found["sweep"]] == [340, 420]
    assert {name: value for name, value in same.items() if name != "vocab_size"} == found["splits"]["validation"]
    assert small["bytes_per_token"] < same["bytes_per_token"]
    assert report(plain)["sweep"] == []


@pytest.fixture
def lossy(tmp_path: Path) -> Path:
    """A tokenizer with all our tokens that folds characters together before it reads them, as most do."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in SPLITS["train"] for line in text.split("\n")),
        model_writer=out,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        normalization_rule_name="nmt_nfkc",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        user_defined_symbols=["\n", "\t"],
        control_symbols=list(CONTROL),
        pad_id=3,
        unk_piece=UNKNOWN,
        bos_piece=BEGIN,
        eos_piece=END,
        pad_piece=PAD,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(out.getvalue())
    return tmp_path / "tokenizer.model"


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_document_that_does_not_come_back_fails_the_stage_by_its_id(lossy: Path, tmp_path: Path, split: str) -> None:
    folded = "let ｆｕｌｌ = ﬁ;\n"  # full-width letters and a ligature
    source = write_dataset(tmp_path / "dataset", {**SPLITS, split: [*SPLITS[split], folded]})
    id = hashlib.sha256(folded.encode()).hexdigest()
    step = Step("tokenizer", "x", {"dataset": source}, tmp_path, tmp_path, None, {}, 0, 1)
    context = HostContext(step, lambda _: None, lambda _: None)
    with pytest.raises(StageFailed, match=f"document {id} of {split} does not survive"):
        stage._prove(context, source, split, lossy)
    assert stage._prove(context, write_dataset(tmp_path / "whole", SPLITS), split, lossy).failure == ""


def test_figures_are_the_same_however_the_documents_are_grouped(tokenize: Tokenize) -> None:
    tokenizer = Tokenizer.load(tokenize())
    parts = [stage.measure(tokenizer, str(n), text) for n, text in enumerate(SPLITS["train"][:9])]
    forward = parts[0]
    for part in parts[1:]:
        forward = forward + part
    backward = parts[-1]
    for part in parts[-2::-1]:
        backward = part + backward
    assert figures(forward, sorted(tokenizer.byte_tokens)) == figures(backward, sorted(tokenizer.byte_tokens))


def test_what_cannot_be_made_is_answered_with_what_to_change(tokenize: Tokenize, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no vocabulary of 30000 tokens") as caught:
        tokenize(SPLITS, "large", vocab_size=30_000)
    assert "vocab_size" in caught.value.hint
    with pytest.raises(UserError):
        tokenize({}, "empty")
    (tmp_path / "none").mkdir()
    with pytest.raises(NotFound, match=r"no train\.jsonl"):
        run_in_process(SPEC, stage.run, inputs={"dataset": tmp_path / "none"}, output=tmp_path / "x", params={})


@pytest.mark.parametrize(
    "params", [{"vocab_size": 10}, {"vocab_size": "many"}, {"longest_piece": 0}, {"vocabsize": 420}, {"sweep": 3}]
)
def test_a_wrong_parameter_is_refused_when_it_is_planned(params: dict[str, object]) -> None:
    with pytest.raises(UserError, match="tokenizer stage"):
        SPEC.resolve(1, params)


def test_it_tells_how_far_it_is(tmp_path: Path) -> None:
    events: list[object] = []
    run_in_process(
        SPEC,
        stage.run,
        inputs={"dataset": write_dataset(tmp_path / "dataset", SPLITS)},
        output=tmp_path / "output",
        params={"vocab_size": 420, "sample_bytes": 1 << 20},
        on_event=events.append,
    )
    rates = [event.rates for event in events if isinstance(event, Progress)]
    assert rates
    assert all(rate["MB/s"] > 0 for rate in rates)
