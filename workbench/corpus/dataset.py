"""A dataset folder: splits of documents in the order of their ids, a schema, statistics. Streaming both ways."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from workbench.corpus import jsonl
from workbench.corpus.document import SCHEMA, Document
from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import Corrupt, NotFound
from workbench.domain.reading import Shape, load_json, record

FORMAT = 1
SPLITS = ("train", "validation", "test")
SCHEMA_FILE, STATISTICS = "schema.json", "statistics.json"
_SCHEMA: Shape[dict[str, Any]] = record(dict, format=(FORMAT,), more=True)


class DatasetReader:
    """Reads the payload of a dataset artifact. Corrupt for another format, another order or a changed text."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            data = (folder / SCHEMA_FILE).read_bytes()
        except OSError:
            raise Corrupt(
                "this is no dataset: it has no readable schema.json", "give the payload of a dataset"
            ) from None
        load_json(data, _SCHEMA, what="the dataset", hint="give the payload of a dataset")

    def documents(self, split: str) -> Iterator[Document]:
        """One at a time, in the order of their ids."""
        last = ""
        for number, row in enumerate(jsonl.read(self.path(split)), 1):
            document = Document.from_row(row, where=f"{split}, line {number}")
            if document.id <= last:
                raise Corrupt(f"{split}, line {number} is out of order or repeated", "build the dataset again")
            last = document.id
            yield document

    def texts(self, splits: Sequence[str] = SPLITS) -> Iterator[str]:
        """The texts of some splits, split after split."""
        for split in splits:
            yield from (document.text for document in self.documents(split))

    def path(self, split: str) -> Path:
        """The file of a split; NotFound where there is no such split."""
        if split not in SPLITS:
            raise NotFound(f"a dataset has no split {split!r}", f"splits: {', '.join(SPLITS)}")
        return self._folder / f"{split}.jsonl"


def write_schema(folder: Path) -> None:
    (folder / SCHEMA_FILE).write_bytes(canonical_lines({"format": FORMAT, "splits": list(SPLITS), "document": SCHEMA}))


def write_split(folder: Path, split: str, documents: Iterable[Document]) -> int:
    """The number of documents; they must come in the order of their ids, each once."""
    return jsonl.write(folder / f"{split}.jsonl", (document.row() for document in _in_order(documents)))


def _in_order(documents: Iterable[Document]) -> Iterator[Document]:
    last = ""
    for document in documents:
        assert document.id > last, "documents are written in the order of their ids, each once"
        last = document.id
        yield document
