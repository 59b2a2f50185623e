"""Shard files: a split's documents as one stream of token ids, cut into rows of the model's context.

The stream loses nothing: a document that does not end with its row goes on in the next, also across files. Only the
last row of a split is filled up with ``<pad>``. ``index.json`` says what there is::

    {"format": 1, "dtype": "uint16", "vocab_size": 4096, "context": 512, "pad": 3, "tokenizer": sha256,
     "splits": {"train": {"files": [{"name", "rows", "sha256"}], "rows", "tokens", "documents", "bytes"}}, "fim": {…}}

``tokens`` counts without the filling, ``bytes`` is UTF-8 text (what bits per byte are counted over).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import Corrupt, NotFound
from workbench.domain.ids import Digest, digest

FORMAT = 1
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


@dataclass(frozen=True)
class ShardIndex:
    vocab_size: int
    context: int
    pad: int
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
            "tokenizer": self.tokenizer,
            "splits": splits,
            "fim": dict(self.fim),
        }
        (folder / INDEX_FILE).write_bytes(canonical_lines(body))

    @classmethod
    def load(cls, folder: Path) -> ShardIndex:
        try:
            raw = json.loads((folder / INDEX_FILE).read_bytes())
            if raw["format"] != FORMAT:
                raise Corrupt(f"shards have format {raw['format']!r}", "upgrade workbench, or build the shards again")
            splits = {
                name: SplitIndex(
                    tuple(ShardFile(f["name"], int(f["rows"]), digest(f["sha256"])) for f in split["files"]),
                    int(split["tokens"]),
                    int(split["documents"]),
                    int(split["bytes"]),
                )
                for name, split in raw["splits"].items()
            }
            return cls(raw["vocab_size"], raw["context"], raw["pad"], raw["tokenizer"], splits, raw["fim"])
        except FileNotFoundError as error:
            raise NotFound(f"no {INDEX_FILE} in {folder}", "give a folder of shards") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupt(f"{INDEX_FILE} cannot be read: {error!r}", "build the shards again") from error


class ShardWriter:
    """Writes one split's stream into files of ``rows_per_file`` rows; ``finish`` fills the last row up."""

    def __init__(self, folder: Path, split: str, *, dtype: np.dtype[Any], context: int, pad: int, rows_per_file: int):
        self._folder, self._split, self._dtype = folder, split, dtype
        self._context, self._pad, self._file_tokens = context, pad, rows_per_file * context
        self._waiting: list[npt.NDArray[Any]] = []
        self._num_waiting = 0
        self._files: list[ShardFile] = []
        self._tokens = self._documents = self._bytes = 0

    def add(self, ids: npt.NDArray[Any], *, documents: int, size_bytes: int) -> None:
        """Append the ids of whole documents."""
        self._tokens += len(ids)
        self._documents += documents
        self._bytes += size_bytes
        while self._num_waiting + len(ids) >= self._file_tokens:
            room = self._file_tokens - self._num_waiting
            self._waiting.append(ids[:room].astype(self._dtype))
            self._write()
            ids = ids[room:]
        self._waiting.append(ids.astype(self._dtype))
        self._num_waiting += len(ids)

    def finish(self) -> SplitIndex:
        if self._num_waiting:
            filling = -self._num_waiting % self._context
            self._waiting.append(np.full(filling, self._pad, self._dtype))
            self._write()
        return SplitIndex(tuple(self._files), self._tokens, self._documents, self._bytes)

    def _write(self) -> None:
        data = np.concatenate(self._waiting).tobytes()
        name = f"{self._split}-{len(self._files):05d}.bin"
        (self._folder / name).write_bytes(data)
        rows = len(data) // self._dtype.itemsize // self._context
        self._files.append(ShardFile(name, rows, Digest(hashlib.sha256(data).hexdigest())))
        self._waiting, self._num_waiting = [], 0


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
        """Inputs and targets, both [rows, context]. A row's last target is the next row's first token; after the last
        row, and wherever nothing is to be learnt, it is the pad id."""
        inputs = [self._row(row) for row in rows]
        x = np.stack(inputs).astype(np.int64)
        following = np.array([self._first(row + 1) for row in rows], np.int64)
        y = np.concatenate([x[:, 1:], following[:, None]], axis=1)
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
