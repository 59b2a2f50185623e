"""The dataset: order, splits, provenance and figures, from a filtered payload made by hand."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.app import stage_host
from workbench.corpus import jsonl, rows
from workbench.corpus.dataset import SPLITS, DatasetReader
from workbench.corpus.rows import FileRow, PackageRow
from workbench.domain.errors import Corrupt, UserError
from workbench.domain.stage import StageResult
from workbench.stages.dataset.spec import SPEC
from workbench.stages.dataset.splits import split_of
from workbench.stages.dataset.stage import run
from workbench.stages.dataset.statistics import Counted, statistics

ids = st.integers(0, 10**9).map(lambda number: hashlib.sha256(str(number).encode()).hexdigest())
shares = st.floats(0.0, 0.4)
GOLDEN = "9aa0a5d1706d22ba"


def filtered(folder: Path, texts: dict[str, str], *, reverse: bool = False) -> Path:
    """A payload of S2: ``texts`` by ``<package>/<path>``."""
    folder.mkdir(exist_ok=True)
    files = []
    for path, text in texts.items():
        place = folder / "files" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode())
        package, data = path.partition("/")[0], text.encode()
        license = "MIT" if package == "a-1" else "Apache-2.0"
        files.append(FileRow(path, package, hashlib.sha256(data).hexdigest(), len(data), text.count("\n"), license, ""))
    names = sorted({file.package for file in files})
    jsonl.write(folder / "files.jsonl", map(rows.row, files[::-1] if reverse else files))
    packages = [
        PackageRow(name, name[:-2], "1", "path", "MIT", "0" * 64, 1, "", 1, []) for name in [*names, "unused-1"]
    ]
    jsonl.write(folder / "packages.jsonl", map(rows.row, packages))
    return folder


def make(source: Path, output: Path, *, workers: int = 2, seed: int = 0, **params: float) -> StageResult:
    given = {"validation": 0.2, "test": 0.2, **params}
    return stage_host.run_in_process(
        SPEC, run, inputs={"filtered": source}, output=output, params=given, seed=seed, workers=workers
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def where(folder: Path) -> dict[str, str]:
    """By id, the split."""
    return {row["id"]: split for split in SPLITS for row in jsonl.read(folder / f"{split}.jsonl")}


def some(count: int, package: str = "a-1") -> dict[str, str]:
    return {f"{package}/src/f{n}.rs": f"pub fn f{n}() -> u32 {{\n    {n} // é\n}}\n" for n in range(count)}


# --- splits -----------------------------------------------------------------------------------------------------------


@given(ids, st.integers(0, 5), shares, shares)
def test_a_document_chooses_its_split_alone_and_always_the_same(id: str, seed: int, validation: float, test: float):
    first = split_of(id, seed=seed, validation=validation, test=test)
    assert first == split_of(id, seed=seed, validation=validation, test=test)
    assert first in SPLITS


@given(ids, shares, shares, st.floats(0.0, 0.1), st.floats(0.0, 0.1))
def test_what_is_held_out_stays_held_out_when_the_shares_grow(
    id: str, validation: float, test: float, more_validation: float, more_test: float
):
    before = split_of(id, seed=0, validation=validation, test=test)
    after = split_of(id, seed=0, validation=validation + more_validation, test=test + more_test)
    assert before == "train" or after == before


def test_the_shares_are_about_what_was_asked_for():
    counts = Counter(
        split_of(hashlib.sha256(bytes([n % 256, n // 256])).hexdigest(), seed=3, validation=0.1, test=0.2)
        for n in range(20_000)
    )
    assert 0.09 < counts["validation"] / 20_000 < 0.11
    assert 0.19 < counts["test"] / 20_000 < 0.21


def test_splits_are_what_they_have_always_been():
    """Golden: a change here moves documents of every dataset between training and what it is judged on."""
    found = "".join(split_of(f"{n:064x}", seed=0, validation=0.2, test=0.2) for n in range(20_000))
    assert hashlib.sha256(found.encode()).hexdigest()[:16] == GOLDEN


# --- the stage --------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 400), min_size=1, max_size=12), st.sets(st.integers(0, 400), max_size=6))
def test_adding_documents_moves_no_other_one(tmp_path_factory, first: set[int], more: set[int]):
    root = tmp_path_factory.mktemp("moves")
    texts = some(401)
    names = list(texts)
    few = {names[n]: texts[names[n]] for n in first}
    many = few | {names[n]: texts[names[n]] for n in more}
    make(filtered(root / "a", few), root / "one")
    make(filtered(root / "b", many), root / "two")
    assert where(root / "one").items() <= where(root / "two").items()


def test_the_payload_does_not_depend_on_the_order_of_the_input_or_the_number_of_workers(tmp_path: Path):
    texts = some(40) | some(10, "b-1")
    make(filtered(tmp_path / "a", texts), tmp_path / "one", workers=1)
    make(filtered(tmp_path / "b", dict(reversed(texts.items())), reverse=True), tmp_path / "two", workers=7)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_every_document_is_there_once_in_the_order_of_its_hash_with_where_it_is_from(tmp_path: Path):
    texts = some(40) | {"b-1/copy.rs": some(1)["a-1/src/f0.rs"], "b-1/own.rs": "fn own() {}\n"}
    result = make(filtered(tmp_path / "in", texts), tmp_path / "out")
    reader = DatasetReader(tmp_path / "out")
    found = [document for split in SPLITS for document in reader.documents(split)]
    assert sorted(document.text for document in found) == sorted(set(texts.values()))
    for document in found:
        assert texts[document.path] == document.text
        assert document.package == document.path.partition("/")[0]
        assert document.license == ("MIT" if document.package == "a-1" else "Apache-2.0")
        assert document.id == hashlib.sha256(document.text.encode()).hexdigest()
    assert {row["package"] for row in jsonl.read(tmp_path / "out" / "packages.jsonl")} == {"a-1", "b-1"}
    assert result.counts["documents"] == 41
    assert result.counts["bytes"] == sum(document.bytes for document in found)


def test_each_row_is_what_the_schema_beside_it_says(tmp_path: Path):
    import jsonschema

    make(filtered(tmp_path / "in", some(20)), tmp_path / "out")
    schema = json.loads((tmp_path / "out/schema.json").read_bytes())
    for split in schema["splits"]:
        for row in jsonl.read(tmp_path / "out" / f"{split}.jsonl"):
            jsonschema.validate(row, schema["document"])


def test_the_statistics_add_up(tmp_path: Path):
    make(filtered(tmp_path / "in", some(40) | some(5, "b-1") | {"b-1/x.rs": "é\n"}), tmp_path / "out")
    found = json.loads((tmp_path / "out/statistics.json").read_bytes())
    for by in ("splits", "licenses", "packages"):
        for figure in ("documents", "bytes", "characters", "lines"):
            assert sum(group[figure] for group in found[by].values()) == found["total"][figure]
    assert found["total"]["documents"] == 41
    assert found["total"]["bytes"] > found["total"]["characters"]
    assert found["bytes_per_document"]["p0"] == 3


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_quantiles_are_sizes_of_documents_and_rise(sizes: list[int]):
    counted = [Counted("train", "a", "MIT", size, 1, size) for size in sizes]
    found = statistics(counted)["bytes_per_document"]
    assert set(found.values()) <= set(sizes)
    assert (found["p0"], found["p100"]) == (min(sizes), max(sizes))
    assert list(found.values()) == sorted(found.values())


def test_another_seed_draws_other_splits(tmp_path: Path):
    source = filtered(tmp_path / "in", some(60))
    make(source, tmp_path / "one")
    make(source, tmp_path / "two", seed=1)
    assert where(tmp_path / "one") != where(tmp_path / "two")
    assert where(tmp_path / "one").keys() == where(tmp_path / "two").keys()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: (f / "files/a-1/src/f0.rs").write_text("changed"), "not the file that the filter wrote down"),
        (lambda f: (f / "files/a-1/src/f0.rs").write_bytes(b"\xff"), "cannot be read: not UTF-8"),
        (lambda f: (f / "files/a-1/src/f0.rs").unlink(), "cannot be read: No such file"),
        (lambda f: (f / "files.jsonl").unlink(), r"files\.jsonl is missing"),
        (lambda f: (f / "packages.jsonl").write_bytes(b""), "does not say where a-1 comes from"),
        (lambda f: (f / "files.jsonl").write_bytes(b"{}\n"), r"files\.jsonl, line 1"),
    ],
    ids=["changed", "no UTF-8", "gone", "no list", "no provenance", "garbage"],
)
def test_a_damaged_input_is_corrupt_and_named(tmp_path: Path, damage, told: str):
    source = filtered(tmp_path / "in", some(3))
    damage(source)
    with pytest.raises(Corrupt, match=told):
        make(source, tmp_path / "out")


def test_an_input_without_files_is_told_not_divided_by(tmp_path: Path):
    source = filtered(tmp_path / "in", {})
    with pytest.raises(UserError, match="the filter kept no file"):
        make(source, tmp_path / "out")


@pytest.mark.parametrize(
    "params", [{"validation": 0.6}, {"test": -0.1}, {"validation": 0.5, "test": 0.5}, {"train": 0.5}]
)
def test_shares_that_leave_nothing_are_refused(params: dict[str, float]):
    with pytest.raises(UserError):
        SPEC.resolve(1, params)
