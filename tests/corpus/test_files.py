"""The files that stages exchange: written and read back the same, and garbage told from good by line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.corpus import dataset, jsonl, rows
from workbench.corpus.dataset import DatasetReader, write_schema, write_split
from workbench.corpus.document import FIELDS, SCHEMA, Document
from workbench.corpus.rows import FileRow, PackageRow, RefusalRow, RejectionRow
from workbench.domain.errors import Corrupt, NotFound

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
documents = st.builds(Document.of, texts, path=texts, package=texts, license=texts)
PACKAGE = PackageRow("a-1", "a", "1", "sdist", "MIT", "0" * 64, 5, "", 2, ["LICENSE"])
FILE = FileRow("a-1/src/lib.rs", "a-1", "0" * 64, 5, 1, "MIT", "")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# --- JSON lines -------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values, max_size=4), max_size=5)
)
def test_rows_come_back_as_they_were_written_one_line_each(tmp_path_factory, objects: list[dict[str, Any]]):
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    try:
        assert jsonl.write(path, objects) == len(objects)
    except UnicodeEncodeError:
        return  # half a surrogate pair is no text
    assert list(jsonl.read(path)) == objects
    assert path.read_bytes().count(b"\n") == len(objects)


def test_rows_are_canonical(tmp_path: Path):
    jsonl.write(tmp_path / "x", [{"b": 1, "a": "é"}])
    assert (tmp_path / "x").read_bytes() == '{"a":"é","b":1}\n'.encode()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"a": 1}\n{"b"\n', "line 2"),
        (b'{"a": 1}\n{"b": 2}', "line 2 is no whole object"),
        (b'{"a": 1}\n[1]\n', "line 2 is no whole object"),
        (b"\n", "line 1"),
        (b"{}\n\n", "line 2"),
        (b"\xff\xfe{}\n", "line 1"),
        (b'\xef\xbb\xbf{"a": 1}\n', "line 1"),
        ('{"a": 1}\n'.encode("utf-16-le"), "line 1"),
        (b'{"a": NaN}\n', "NaN is not JSON"),
        (b'{"a": -Infinity}\n', "Infinity is not JSON"),
        (b'{"a": ' + b"[" * 1000 + b"]" * 1000 + b"}\n", "line 1.* its values are nested deeper"),
        (b'{"a": ' + b"9" * 10_000 + b"}\n", "line 1"),
        (b"\0" * 100, "line 1"),
    ],
    ids=[
        "cut", "no newline", "a list", "an empty line", "an empty line at the end", "no UTF-8", "a byte order mark",
        "UTF-16", "NaN", "infinity", "deep", "a huge number", "nulls",
    ],
)  # fmt: skip
def test_garbage_is_told_by_its_line(tmp_path: Path, data: bytes, told: str):
    with pytest.raises(Corrupt, match=told):
        list(jsonl.read(write(tmp_path / "rows.jsonl", data)))


@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_corrupt(tmp_path_factory, data: bytes):
    path = write(tmp_path_factory.getbasetemp() / "any.jsonl", data)
    try:
        assert all(isinstance(row, dict) for row in jsonl.read(path))
    except Corrupt as error:
        if "any.jsonl, line" not in error.what:
            raise


def test_a_missing_file_is_corrupt_not_a_traceback(tmp_path: Path):
    with pytest.raises(Corrupt, match=r"gone\.jsonl is missing"):
        list(jsonl.read(tmp_path / "gone.jsonl"))


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [PACKAGE, FILE, RefusalRow("a", "", "bomb", ""), RejectionRow("a/b", "a", "x", "")])
def test_each_row_comes_back_as_it_was(tmp_path: Path, value: Any):
    jsonl.write(tmp_path / "x", [rows.row(value)])
    assert rows.read(type(value), tmp_path / "x") == [value]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"files": "2"}, "files: '2' is not a whole number"),
        ({"files": True}, "files: True is not a whole number"),
        ({"name": None}, "name: None is not text"),
        ({"license_files": "LICENSE"}, "not a list"),
        ({"license_files": ["LICENSE", 5]}, r"license_files\[1\]: 5 is not text"),
        ({"extra": 1}, "extra: no such field"),
        ({"license_files": ["../../etc/passwd"]}, "no path below a package"),
        ({"license_files": ["/etc/passwd"]}, "no path below a package"),
        ({"package": ".."}, "no name of a folder"),
        ({"package": "a/b"}, "no name of a folder"),
        ({"package": ""}, "no name of a folder"),
    ],
)
def test_a_wrong_package_row_is_told_by_its_line_and_field(tmp_path: Path, change: dict[str, Any], told: str):
    jsonl.write(tmp_path / "packages.jsonl", [rows.row(PACKAGE), {**rows.row(PACKAGE), **change}])
    with pytest.raises(Corrupt, match=rf"packages\.jsonl, line 2.*: .*{told}"):
        rows.read(PackageRow, tmp_path / "packages.jsonl")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "a//b", "", ".", "a/\0b"])
def test_a_file_row_never_leads_out_of_its_folder(path: str):
    with pytest.raises(Corrupt, match="no path below a package"):
        rows.parse(FileRow, {**rows.row(FILE), "path": path}, where="files")


def test_a_missing_field_is_named():
    raw = rows.row(FILE)
    del raw["license"]
    with pytest.raises(Corrupt, match="license"):
        rows.parse(FileRow, raw, where="files")


# --- documents --------------------------------------------------------------------------------------------------------


@given(documents)
def test_a_document_comes_back_from_its_row(document: Document):
    assert Document.from_row(json.loads(json.dumps(document.row()))) == document


@pytest.mark.parametrize(
    "change",
    [
        {"text": "other"},
        {"bytes": 1},
        {"id": "0" * 64},
        {"bytes": True},
        {"bytes": 5.0},
        {"path": None},
        {"extra": ""},
        {"text": "\ud800"},
    ],
)
def test_a_document_that_is_not_what_it_says_is_corrupt(change: dict[str, Any]):
    with pytest.raises(Corrupt, match="here"):
        Document.from_row({**Document.of("hello", path="p", package="k", license="MIT").row(), **change}, where="here")


def test_the_schema_says_what_is_checked():
    assert SCHEMA["properties"].keys() == set(FIELDS)
    assert SCHEMA["required"] == sorted(field.name for field in dataclasses.fields(Document))


# --- datasets ---------------------------------------------------------------------------------------------------------


def some(count: int) -> list[Document]:
    made = [Document.of(f"fn f{n}() {{}}\n", path=f"a/{n}.rs", package="a", license="MIT") for n in range(count)]
    return sorted(made, key=lambda document: document.id)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_schema(tmp_path)
    for split, part in zip(dataset.SPLITS, (some(5), some(2), []), strict=True):
        write_split(tmp_path, split, part)
    return tmp_path


def test_a_dataset_comes_back_split_by_split(written: Path):
    reader = DatasetReader(written)
    assert list(reader.documents("train")) == some(5)
    assert list(reader.documents("test")) == []
    assert list(reader.texts(("validation", "test"))) == [document.text for document in some(2)]


def test_a_split_that_there_is_not_is_not_found(written: Path):
    with pytest.raises(NotFound, match="train, validation, test"):
        list(DatasetReader(written).documents("../train"))


def test_a_split_whose_file_is_missing_is_corrupt(written: Path):
    (written / "test.jsonl").unlink()
    with pytest.raises(Corrupt, match=r"test\.jsonl is missing"):
        list(DatasetReader(written).documents("test"))


def test_another_order_or_a_repeated_document_is_corrupt(written: Path):
    lines = (written / "train.jsonl").read_bytes().splitlines(keepends=True)
    for wrong in (lines[::-1], [lines[0], lines[0]]):
        (written / "train.jsonl").write_bytes(b"".join(wrong))
        with pytest.raises(Corrupt, match=r"train, line 2 is out of order or repeated"):
            list(DatasetReader(written).documents("train"))


def test_a_changed_text_is_corrupt(written: Path):
    data = (written / "train.jsonl").read_bytes()
    (written / "train.jsonl").write_bytes(data.replace(b"fn f", b"fn g", 1))
    with pytest.raises(Corrupt, match=r"train, line 1: the text is not the one its id names"):
        list(DatasetReader(written).documents("train"))


def test_documents_are_written_in_order_or_not_at_all(tmp_path: Path):
    for wrong in (some(3)[::-1], [some(1)[0]] * 2):
        with pytest.raises(AssertionError):
            write_split(tmp_path, "train", wrong)


@pytest.mark.parametrize(
    "schema", [b"", b"[]", b"{}", b"{", b"\xff", b'{"format": 2}', b'{"format": "1"}', b"[" * 100_000]
)
def test_a_schema_of_another_format_or_garbage_is_corrupt(tmp_path: Path, schema: bytes):
    (tmp_path / "schema.json").write_bytes(schema)
    with pytest.raises(Corrupt, match=r"the dataset (cannot be read|has format)"):
        DatasetReader(tmp_path)


def test_a_folder_without_a_schema_is_no_dataset(tmp_path: Path):
    with pytest.raises(Corrupt, match="no readable schema"):
        DatasetReader(tmp_path)
