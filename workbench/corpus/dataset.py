"""A dataset folder: splits of documents in the order of their ids, a schema, statistics. Streaming both ways."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from workbench.corpus import jsonl
from workbench.corpus.document import SCHEMA, Document
from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import Corrupt, NotFound

FORMAT = 1
SPLITS = ("train", "validation", "test")
SCHEMA_FILE, STATISTICS = "schema.json", "statistics.json"


class DatasetReader:
    """Reads the payload of a dataset artifact. Corrupt for another format, another order or a changed text."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            schema = json.loads((folder / SCHEMA_FILE).read_bytes())
            self._format = schema["format"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise Corrupt(
                "this is no dataset: it has no readable schema.json", "give the payload of a dataset"
            ) from None
        if self._format != FORMAT:
            raise Corrupt(
                f"the dataset has format {self._format!r}; this workbench reads format {FORMAT}",
                "upgrade workbench, or build the dataset again",
            )

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
