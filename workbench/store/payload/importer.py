"""``import FILE``: a model or dataset that someone else made becomes an artifact with licence and provenance.

A GGUF becomes a ``release`` and JSON lines a ``dataset``, both in the layout that our own have (``formats.md``), so
that they can be pinned, served and trained on. Nothing of the file is executed, and llama.cpp does not see it here: its
header is checked within bounds first. What the file says of itself is not believed where it can be counted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from workbench.corpus import jsonl
from workbench.corpus.dataset import SPLITS, STATISTICS, write_schema, write_split
from workbench.corpus.document import Document
from workbench.corpus.rows import PACKAGES, PackageRow, row
from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import NotFound, Refused, UserError
from workbench.domain.ids import Digest
from workbench.domain.manifest import Manifest
from workbench.domain.refs import Kind, check_name
from workbench.domain.version import Bump
from workbench.ports.store import Artifact, Repository
from workbench.store.payload.names import check_path
from workbench.store.payload.tensors import GGML_NAMES, Header, HostileHeader, read_gguf

FORMAT = 1
SPLIT_SHARES = {"validation": 0.01, "test": 0.01}  # as the dataset stage has by default
LINE_MAX = 64 << 20  # bytes
_ENDINGS = {".gguf": Kind.RELEASE, ".jsonl": Kind.DATASET}
# general.file_type of the GGUF specification, where it says more than the tensors' types do
_FILE_TYPES = {12: "Q3_K_M", 13: "Q3_K_L", 11: "Q3_K_S", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M"}


def import_file(
    repo: Repository, path: Path, *, kind: str = "", name: str, license: str, origin: str = "", who: str
) -> Artifact:
    """Publish a file from elsewhere. ``kind`` is release or dataset (empty: by the file's ending); ``license`` an SPDX
    expression; ``origin`` free text that says where it comes from. Refused, with the reason, for what is hostile."""
    check_name(name, "artifact name")
    spdx = spdx_expression(license)
    path = Path(os.path.realpath(path))
    if not path.is_file():
        raise NotFound(f"no such file: {path}", "give the path of a .gguf or .jsonl file")
    wanted = _kind(path, kind)
    with _workshop(repo.path) as folder:
        build = _build_release if wanted is Kind.RELEASE else _build_dataset
        facts = _Source(path, name, spdx, origin)
        counts = build(facts, folder)
        params = {"file": path.name, "license": spdx, "origin": origin, "sha256": facts.sha256, "size": facts.size}
        staged = repo.artifacts.stage(folder, Manifest(wanted, name, params=params, stage="import", counts=counts))
        return repo.artifacts.publish(staged, bump=Bump.MINOR, who=who, why=f"import {path.name} ({spdx})")


def spdx_expression(license: str) -> str:
    """The expression in SPDX's own spelling; UserError where it is not one."""
    from license_expression import ExpressionError, ExpressionParseError, get_spdx_licensing

    problem = "it is empty" if not license.strip() else "it is too long" if len(license) > 500 else ""
    if not problem:
        try:
            # Not ``validate()``: it raises AttributeError for "MIT OR", and takes the empty text for a licence "None".
            return str(get_spdx_licensing().parse(license, validate=True, strict=True))
        except (ExpressionError, ExpressionParseError, RecursionError) as error:
            problem = " ".join(str(error).split())
    raise UserError(f"not an SPDX licence expression: {license[:200]!r} ({problem})", "for example Apache-2.0 OR MIT")


def _kind(path: Path, kind: str) -> Kind:
    found = _ENDINGS.get(path.suffix.lower())
    wanted = kind or (found.value if found else "")
    if wanted not in (Kind.RELEASE, Kind.DATASET):
        raise UserError(
            f"cannot import {path.name} as {wanted or 'anything'}", "import a .gguf model or a .jsonl dataset"
        )
    return Kind(wanted)


_Place = tuple[str, int, int]  # id, offset and number of a line


class _Source:
    """The file from outside, measured when it is first asked for."""

    def __init__(self, path: Path, name: str, license: str, origin: str) -> None:
        self.path = path
        self.name = name
        self.license = license
        self.origin = origin
        self.size = path.stat().st_size
        with path.open("rb") as stream:
            self.sha256 = Digest(hashlib.file_digest(stream, "sha256").hexdigest())


# --- release ----------------------------------------------------------------------------------------------------------


def _build_release(source: _Source, folder: Path) -> Mapping[str, int]:
    with source.path.open("rb") as stream:
        header = _checked_header(stream, source)
    model = f"{source.name}-{_quantisation(header)}.gguf"
    try:
        os.link(source.path, folder / model)
    except OSError:  # another file system
        shutil.copyfile(source.path, folder / model)
    licences = {
        "format": FORMAT,
        "license": source.license,
        "by_license": {source.license: {"packages": 1, "documents": 0, "bytes": source.size}},
        "packages": [
            {
                "name": source.name, "version": "", "kind": "import", "license": source.license,
                "sha256": source.sha256, "commit": "", "documents": 0, "bytes": source.size,
            }
        ],
    }  # fmt: skip
    (folder / "licenses.json").write_bytes(canonical_lines(licences))
    (folder / "README.md").write_text(_card(source, header, model), encoding="utf-8")
    sums = [(source.sha256, model)]
    for name in ("README.md", "licenses.json"):
        sums.append((Digest(hashlib.sha256((folder / name).read_bytes()).hexdigest()), name))
    lines = sorted(f"{digest}  {name}\n" for digest, name in sums)
    (folder / "SHA256SUMS").write_text("".join(sorted(lines, key=lambda line: line[66:])), encoding="utf-8")
    return {"tensors": sum(header.types.values()), "bytes": source.size}


def _checked_header(stream: BinaryIO, source: _Source) -> Header:
    try:
        header = read_gguf(stream, source.size)
    except HostileHeader as error:
        raise Refused(
            f"{source.path.name} is refused: {error}", "get the file again from a source you trust"
        ) from error
    if not header.types:
        raise Refused(f"{source.path.name} is refused: it holds no tensors", "import a whole model, not a vocabulary")
    if "general.architecture" not in header.metadata:
        raise Refused(f"{source.path.name} is refused: it names no architecture", "import a language model")
    return header


def _quantisation(header: Header) -> str:
    """As its maker names it where that fits what is inside, else the type that most tensors have."""
    weights = Counter({kind: count for kind, count in header.types.items() if kind != 0}) or Counter(header.types)
    commonest = max(sorted(weights), key=lambda kind: weights[kind])
    named = _FILE_TYPES.get(header.metadata.get("general.file_type", -1), "")
    inside = GGML_NAMES[commonest]
    return named if named.startswith(inside) else inside


def _card(source: _Source, header: Header, model: str) -> str:
    rows = [
        ("file", f"`{model}` ({source.size} bytes)"),
        ("imported from", f"`{_plain(source.path.name)}`"),
        ("origin", _plain(source.origin) or "not stated"),
        ("sha256", f"`{source.sha256}`"),
        ("licence", source.license),
        ("architecture", f"`{_plain(str(header.metadata['general.architecture']))}`"),
        ("name in the file", f"`{_plain(str(header.metadata.get('general.name', '')))}`"),
        ("tensors", ", ".join(f"{count} {GGML_NAMES[kind]}" for kind, count in sorted(header.types.items()))),
    ]
    table = "".join(f"| {what} | {value} |\n" for what, value in rows)
    return f"# {source.name}\n\nA model that was made elsewhere and imported as it is.\n\n| | |\n|---|---|\n{table}"


def _plain(text: str) -> str:
    """Text of strangers in a table cell: one short line, nothing that Markdown or a terminal acts on."""
    return "".join(c if c.isprintable() and c not in "`|<>[]\\" else " " for c in text[:200]).strip()


# --- dataset ----------------------------------------------------------------------------------------------------------


def _build_dataset(source: _Source, folder: Path) -> Mapping[str, int]:
    from workbench.stages.dataset.splits import split_of
    from workbench.stages.dataset.statistics import Counted, statistics

    places: dict[str, list[_Place]] = {split: [] for split in SPLITS}
    counted = []
    seen: set[str] = set()
    licensed = _Licences(source.license)
    num_rows = 0
    with source.path.open("rb") as stream:
        for offset, number, document in _documents(stream, source, licensed):
            num_rows += 1
            if document.id in seen:
                continue
            seen.add(document.id)
            split = split_of(document.id, seed=0, **SPLIT_SHARES)
            places[split].append((document.id, offset, number))
            counted.append(
                Counted(
                    split,
                    document.package,
                    document.license,
                    document.bytes,
                    document.text.count("\n") + 1,
                    len(document.text),
                )
            )
        if not counted:
            raise Refused(f"{source.path.name} holds no documents", 'each line is an object with a "text"')
        for split in SPLITS:
            write_split(folder, split, _again(stream, source, licensed, sorted(places[split])))
    package = PackageRow(
        package=source.name, name=source.name, version="", kind="import", license=source.license,
        sha256=source.sha256, size=source.size, commit="", files=len(counted), license_files=[],
    )  # fmt: skip
    jsonl.write(folder / PACKAGES, [row(package)])
    write_schema(folder)
    (folder / STATISTICS).write_bytes(canonical_lines(statistics(counted)))
    return {"documents": len(counted), "duplicates": num_rows - len(counted), "bytes": source.size}


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


def _documents(stream: BinaryIO, source: _Source, licensed: _Licences) -> Iterator[tuple[int, int, Document]]:
    """Every document with the offset and number of its line."""
    offset = number = 0
    while line := stream.readline(LINE_MAX):
        number += 1
        if line.strip():
            yield offset, number, _document(line, number, source, licensed)
        offset += len(line)


def _again(stream: BinaryIO, source: _Source, licensed: _Licences, places: list[_Place]) -> Iterator[Document]:
    """The documents of a split in the order of their ids: the texts of a large file never lie in memory at once."""
    for id, offset, number in places:
        stream.seek(offset)
        document = _document(stream.readline(LINE_MAX), number, source, licensed)
        if document.id != id:
            raise Refused(f"{source.path.name} changed while it was imported", "import it when nobody writes to it")
        yield document


def _document(line: bytes, number: int, source: _Source, licensed: _Licences) -> Document:
    """A line with a ``text``, and perhaps a ``path`` and a ``license``; all else in it is left behind."""
    where = f"{source.path.name}, line {number}"
    hint = 'each line is a JSON object with a "text", and perhaps a "path" and a "license"'
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{where} is refused: no JSON ({error})", hint) from error
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


@contextmanager
def _workshop(git_dir: Path) -> Iterator[Path]:
    """A private folder, on the repository's file system where that may be written to."""
    base = git_dir / "workbench" if os.access(git_dir, os.W_OK) else None
    if base is not None:
        base.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="import-", dir=base) as folder:
        yield Path(folder)
