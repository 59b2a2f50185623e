"""Shard files: a split's documents as rows of the model's context, each a row of ``packing``.

Plain text that does not end with its row goes on at the beginning of the next, also across files.
``index.json`` says what there is::

    {"format": 2, "dtype": "uint16", "vocab_size": 4096, "context": 512, "pad": 3, "begin": 1, "end": 2,
     "tokenizer": sha256,
     "splits": {"train": {"files": [{"name", "rows", "sha256"}], "rows", "tokens", "documents", "bytes"}}, "fim": {…}}

``tokens`` counts without the filling, ``bytes`` is UTF-8 text (what bits per byte are counted over); ``begin`` and
``end`` stand around each document and span.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import Corrupt, NotFound
from workbench.domain.ids import Digest, digest
from workbench.domain.reading import anything, by_format, checked, items, load_json, mapping, record, text, whole
from workbench.tokens.packing import RowPacker

FORMAT = 2  # 1: a stream without a break, so spans were cut, and no begin and end
INDEX_FILE = "index.json"

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShardFile:
    name: str
    rows: int
    sha256: Digest


@dataclass(frozen=True)
class SplitIndex:
    files: tuple[ShardFile, ...]
    tokens: int
    documents: int
    bytes: int

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def predicted(self) -> int:
        """Tokens that something is learnt of, about: of a document all but its first."""
        return self.tokens - self.documents


@dataclass(frozen=True)
class ShardIndex:
    vocab_size: int
    context: int
    pad: int
    begin: int | None  # None in format 1
    end: int | None
    tokenizer: str  # sha256 of tokenizer.model
    splits: Mapping[str, SplitIndex]
    fim: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Little-endian, as narrow as the vocabulary allows."""
        return np.dtype("<u2" if self.vocab_size <= 1 << 16 else "<u4")

    def save(self, folder: Path) -> None:
        splits = {
            name: {
                "files": [{"name": file.name, "rows": file.rows, "sha256": file.sha256} for file in split.files],
                "rows": split.rows,
                "tokens": split.tokens,
                "documents": split.documents,
                "bytes": split.bytes,
            }
            for name, split in self.splits.items()
        }
        body = {
            "format": FORMAT,
            "dtype": "uint16" if self.dtype.itemsize == 2 else "uint32",
            "vocab_size": self.vocab_size,
            "context": self.context,
            "pad": self.pad,
            "begin": self.begin,
            "end": self.end,
            "tokenizer": self.tokenizer,
            "splits": splits,
            "fim": dict(self.fim),
        }
        (folder / INDEX_FILE).write_bytes(canonical_lines(body))

    @classmethod
    def load(cls, folder: Path) -> ShardIndex:
        try:
            data = (folder / INDEX_FILE).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"no {INDEX_FILE} in {folder}", "give a folder of shards") from error
        return load_json(data, _INDEX, what=INDEX_FILE, hint="build the shards again")


def _index(*, dtype: str, begin: int | None = None, end: int | None = None, **fields: Any) -> ShardIndex:
    return ShardIndex(begin=begin, end=end, **fields)  # its dtype follows from the vocabulary


def _split(*, rows: int, **fields: Any) -> SplitIndex:
    return SplitIndex(**fields)  # its rows are those of its files


_ID = whole(most=(1 << 32) - 1)
_FILE = record(ShardFile, name=text(pattern=r"[a-z]+-[0-9]+\.bin"), rows=whole(), sha256=checked(text(), digest))
_SPLIT = record(_split, files=items(_FILE), rows=whole(), tokens=whole(), documents=whole(), bytes=whole())
_of_format = partial(
    record,
    _index,
    dtype=text(),
    vocab_size=whole(1, 1 << 32),
    context=whole(1, 1 << 32),
    pad=_ID,
    tokenizer=text(),
    splits=mapping(_SPLIT),
    fim=mapping(anything()),
)
_INDEX = by_format({1: _of_format(format=(1,)), FORMAT: _of_format(format=(FORMAT,), begin=_ID, end=_ID)})


class ShardWriter:
    """Packs one split into rows and writes them into files of ``rows_per_file``; ``finish`` ends the last row."""

    def __init__(self, folder: Path, split: str, index: ShardIndex, *, rows_per_file: int):
        self._folder, self._split, self._dtype = folder, split, index.dtype
        self._packer = RowPacker(index.context, index.pad)
        self._rows_per_file = rows_per_file
        self._rows: list[npt.NDArray[Any]] = []
        self._files: list[ShardFile] = []
        self._tokens = self._documents = self._bytes = 0

    def add(
        self,
        plain: npt.NDArray[Any],
        spans: Sequence[npt.NDArray[Any]] = (),
        *,
        documents: int,
        size_bytes: int,
    ) -> None:
        """Append the ids of whole documents: those that stay as they are, and spans."""
        self._tokens += len(plain) + sum(map(len, spans))
        self._documents += documents
        self._bytes += size_bytes
        self._write(self._packer.add(plain, spans))

    def finish(self) -> SplitIndex:
        self._write(self._packer.finish())
        if self._rows:
            self._write_file()
        return SplitIndex(tuple(self._files), self._tokens, self._documents, self._bytes)

    def _write(self, rows: Iterable[npt.NDArray[Any]]) -> None:
        for row in rows:
            self._rows.append(row.astype(self._dtype))
            if len(self._rows) == self._rows_per_file:
                self._write_file()

    def _write_file(self) -> None:
        data = np.concatenate(self._rows).tobytes()
        name = f"{self._split}-{len(self._files):05d}.bin"
        (self._folder / name).write_bytes(data)
        self._files.append(ShardFile(name, len(self._rows), Digest(hashlib.sha256(data).hexdigest())))
        self._rows = []


class SplitReader:
    """A split's rows by number, mapped from the files and never read whole."""

    def __init__(self, folder: Path, split: str) -> None:
        self.index = ShardIndex.load(folder)
        if split not in self.index.splits:
            known = ", ".join(sorted(self.index.splits))
            raise NotFound(f"the shards have no split {split!r}", f"they have {known}")
        self.split = self.index.splits[split]
        self._files = [self._map(folder / file.name, file) for file in self.split.files]
        self._starts = np.cumsum([0, *(file.rows for file in self.split.files)])

    @property
    def rows(self) -> int:
        return self.split.rows

    def read(self, rows: Sequence[int] | Iterable[int]) -> tuple[Ids, Ids]:
        """Inputs and targets, both [rows, context]. A row's last target is the next row's first token. The target is
        the pad id where nothing is to be learnt: after the last row, after the end of a document, and where the text is
        not gone on with but another begins."""
        inputs = [self._row(row) for row in rows]
        x = np.stack(inputs).astype(np.int64)
        following = np.array([self._first(row + 1) for row in rows], np.int64)
        y = np.concatenate([x[:, 1:], following[:, None]], axis=1)
        if self.index.end is not None:
            y[(x == self.index.end) | (x == self.index.pad) | (y == self.index.begin)] = self.index.pad
        return x, y

    def _row(self, row: int) -> npt.NDArray[Any]:
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} of {self.rows}")
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        found: npt.NDArray[Any] = self._files[number][row - int(self._starts[number])]
        return found

    def _first(self, row: int) -> int:
        return int(self._row(row)[0]) if row < self.rows else self.index.pad

    def _map(self, path: Path, file: ShardFile) -> npt.NDArray[Any]:
        expected = file.rows * self.index.context * self.index.dtype.itemsize
        if not path.is_file() or path.stat().st_size != expected:
            raise Corrupt(f"shard {file.name} is not {expected} bytes long", "fetch or build the shards again")
        return np.memmap(path, self.index.dtype, "r", shape=(file.rows, self.index.context))
