"""S3 dataset: every kept file becomes a document; documents are ordered, split, described. Nothing is judged here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from workbench.config.params import resolve_params
from workbench.corpus import dataset, jsonl, rows
from workbench.corpus.document import Document
from workbench.corpus.rows import FileRow, PackageRow
from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import Corrupt, UserError
from workbench.domain.stage import StageResult
from workbench.ports.work import StageContext
from workbench.stages.dataset.params import DatasetParams
from workbench.stages.dataset.splits import split_of
from workbench.stages.dataset.statistics import Counted, statistics


def run(context: StageContext) -> StageResult:
    params = resolve_params(DatasetParams, context.params, stage="dataset")
    filtered = context.inputs["filtered"]
    files = _first_of_each(rows.read(FileRow, filtered / rows.FILES))
    known = rows.read(PackageRow, filtered / rows.PACKAGES)
    if unknown := sorted({file.package for file in files} - {row.package for row in known}):
        raise Corrupt(f"{rows.PACKAGES} does not say where {unknown[0]} comes from", "run the filter again")
    if not files:
        raise UserError("the filter kept no file: there is nothing to make a dataset of", "crawl more, or loosen it")
    splits: dict[str, list[FileRow]] = {split: [] for split in dataset.SPLITS}
    for file in files:
        splits[split_of(file.sha256, seed=context.seed, validation=params.validation, test=params.test)].append(file)
    counted: list[Counted] = []
    for split, members in splits.items():
        dataset.write_split(context.output, split, _documents(context, filtered, split, members, counted, len(files)))
    dataset.write_schema(context.output)
    (context.output / dataset.STATISTICS).write_bytes(canonical_lines(statistics(counted)))
    used = {file.package for file in files}
    packages = [row for row in known if row.package in used]
    jsonl.write(context.output / rows.PACKAGES, map(rows.row, packages))
    context.say(", ".join(f"{split}: {len(members)} documents" for split, members in splits.items()))
    counts = {f"{split}_documents": len(members) for split, members in splits.items()}
    return StageResult(counts=counts | {"documents": len(files), "bytes": sum(file.bytes for file in files)})


def _first_of_each(files: Sequence[FileRow]) -> list[FileRow]:
    """In the order of content hashes; of equal contents (a filter may keep them) the first path."""
    unique: dict[str, FileRow] = {}
    for file in sorted(files, key=lambda file: (file.sha256, file.path)):
        unique.setdefault(file.sha256, file)
    return list(unique.values())


def _text(place: Path, file: FileRow) -> str:
    """Corrupt where it is not what the filter wrote down."""
    try:
        data = place.read_bytes()
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise Corrupt(
            f"{file.path} cannot be read: {what}", "run `workbench verify` on the filtered artifact"
        ) from None
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise Corrupt(f"{file.path} is not the file that the filter wrote down", "run `workbench verify`")
    return text


def _documents(
    context: StageContext, filtered: Path, split: str, files: Sequence[FileRow], counted: list[Counted], total: int
) -> Iterator[Document]:
    for file in files:
        text = _text(filtered / rows.FILES_FOLDER / file.path, file)
        document = Document.of(text, path=file.path, package=file.package, license=file.license)
        counted.append(Counted(split, file.package, file.license, document.bytes, text.count("\n"), len(text)))
        context.progress(len(counted), total, "documents")
        yield document
