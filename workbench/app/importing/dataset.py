"""JSON lines of strangers as a dataset: each line checked, ordered, split and counted as our own documents are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from workbench.app.importing.source import Source, spdx_expression
from workbench.corpus import jsonl
from workbench.corpus.dataset import SPLITS, STATISTICS, write_schema, write_split
from workbench.corpus.document import Document
from workbench.corpus.rows import PACKAGES, PackageRow, row
from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import Refused, UserError
from workbench.domain.reading import BadInput, Limits, parse_json
from workbench.stages.dataset.splits import split_of
from workbench.stages.dataset.statistics import Counted, statistics
from workbench.store.payload.names import check_path

SHARE = 0.01  # of the documents, for validation and for test each: as the dataset stage has for a large source
FEW, FEW_SHARE = 1000, 0.1  # of fewer documents so small a share may be none at all
LINE_MAX = 64 << 20  # bytes
_LIMITS = Limits(size_bytes=LINE_MAX)

_Place = tuple[str, int, int]  # id, offset and number of a line


def build(source: Source, folder: Path) -> Mapping[str, int]:
    """Leave the payload of a dataset in ``folder``; its counts. Refused, with the number of the line."""
    found: dict[str, tuple[_Place, Counted]] = {}
    licensed = _Licences(source.license)
    num_rows = 0
    with source.path.open("rb") as stream:
        for offset, number, document in _documents(stream, source, licensed):
            num_rows += 1
            if document.id not in found:
                found[document.id] = (document.id, offset, number), _counted(document)
        if not found:
            raise Refused(f"{source.path.name} holds no documents", 'each line is an object with a "text"')
        share = FEW_SHARE if len(found) < FEW else SHARE
        splits = {id: split_of(id, seed=0, validation=share, test=share) for id in found}
        for split in SPLITS:
            places = sorted(place for id, (place, _) in found.items() if splits[id] == split)
            write_split(folder, split, _again(stream, source, licensed, places))
    counted = [replace(each, split=splits[id]) for id, (_, each) in found.items()]
    package = PackageRow(
        package=source.name, name=source.name, version="", kind="import", license=source.license,
        sha256=source.sha256, size=source.size, commit="", files=len(counted), license_files=[],
    )  # fmt: skip
    jsonl.write(folder / PACKAGES, [row(package)])
    write_schema(folder)
    (folder / STATISTICS).write_bytes(canonical_lines(statistics(counted)))
    return {"documents": len(counted), "duplicates": num_rows - len(counted), "bytes": source.size}


def _counted(document: Document) -> Counted:
    lines = document.text.count("\n")
    return Counted("", document.package, document.license, document.bytes, lines, len(document.text))


class _Licences:
    """SPDX expressions of single documents, each checked once."""

    def __init__(self, default: str) -> None:
        self._default = default
        self._known: dict[str, str] = {}

    def of(self, text: str) -> str:
        if not text:
            return self._default
        if text not in self._known:
            self._known[text] = spdx_expression(text)
        return self._known[text]


def _documents(stream: BinaryIO, source: Source, licensed: _Licences) -> Iterator[tuple[int, int, Document]]:
    """Every document with the offset and number of its line."""
    offset = number = 0
    while line := stream.readline(LINE_MAX):
        number += 1
        if line.strip():
            yield offset, number, _document(line, number, source, licensed)
        offset += len(line)


def _again(stream: BinaryIO, source: Source, licensed: _Licences, places: list[_Place]) -> Iterator[Document]:
    """The documents of a split in the order of their ids: the texts of a large file never lie in memory at once."""
    for id, offset, number in places:
        stream.seek(offset)
        document = _document(stream.readline(LINE_MAX), number, source, licensed)
        if document.id != id:
            raise Refused(f"{source.path.name} changed while it was imported", "import it when nobody writes to it")
        yield document


def _document(line: bytes, number: int, source: Source, licensed: _Licences) -> Document:
    """A line with a ``text``, and perhaps a ``path`` and a ``license``; all else in it is left behind."""
    where = f"{source.path.name}, line {number}"
    hint = 'each line is a JSON object with a "text", and perhaps a "path" and a "license"'
    try:
        raw = parse_json(line, _LIMITS)
    except BadInput as bad:
        raise Refused(f"{where} is refused: {bad}", hint) from None
    text = raw.get("text") if isinstance(raw, dict) else None
    if not isinstance(text, str) or not text:
        raise Refused(f"{where} is refused: it has no text", hint)
    inside, license = raw.get("path") or f"{number:09d}.txt", raw.get("license") or ""
    if not isinstance(inside, str) or not isinstance(license, str):
        raise Refused(f"{where} is refused: path and license are text", hint)
    try:
        return Document.of(
            text, path=f"{source.name}/{check_path(inside)}", package=source.name, license=licensed.of(license)
        )
    except UnicodeEncodeError as error:
        raise Refused(f"{where} is refused: the text is no Unicode ({error.reason})", hint) from error
    except UserError as error:
        raise Refused(f"{where} is refused: {error.what}", error.hint) from error
