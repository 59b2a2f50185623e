"""A model of strangers as a release: header within bounds, opened once in the sandbox, then card, licence and sums."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from workbench.app.importing.source import Source
from workbench.app.importing.trial import Trial
from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import Refused
from workbench.domain.gguf import Header, HostileHeader, parse_header
from workbench.domain.ids import Digest

FORMAT = 1
_FETCH_AGAIN = "get the file again from a source you trust"
# general.file_type of the GGUF specification, where it says more than the tensors' types do
_FILE_TYPES = {12: "Q3_K_M", 13: "Q3_K_L", 11: "Q3_K_S", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M"}


def build(source: Source, folder: Path, trial: Trial) -> Mapping[str, int]:
    """Leave the payload of a release in ``folder``; its counts. Refused, with the reason."""
    header, digest = checked_header(source), source.sha256
    trial(source.path)
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
    sums = [(digest, model)]
    for name in ("README.md", "licenses.json"):
        sums.append((Digest(hashlib.sha256((folder / name).read_bytes()).hexdigest()), name))
    lines = [f"{digest}  {name}\n" for digest, name in sums]
    (folder / "SHA256SUMS").write_text("".join(sorted(lines, key=lambda line: line[66:])), encoding="utf-8")
    return {"tensors": len(header.tensors), "bytes": source.size}


def checked_header(source: Source) -> Header:
    """The header, within bounds, of what may be a language model."""
    name = source.path.name
    try:
        with source.path.open("rb") as stream:
            header = parse_header(stream, source.size)
    except HostileHeader as error:
        raise Refused(f"{name} is refused: {error}", _FETCH_AGAIN) from error
    if not header.tensors:
        raise Refused(f"{name} is refused: it holds no tensors", "import a whole model, not a vocabulary")
    if not header.architecture:
        raise Refused(f"{name} is refused: it names no architecture", "import a language model")
    return header


def _quantisation(header: Header) -> str:
    """As its maker names it where that fits what is inside, else the type that most tensors have."""
    weights = {kind: count for kind, count in header.types.items() if kind != "F32"} or header.types
    inside = max(weights, key=lambda kind: weights[kind])
    file_type = header.metadata.get("general.file_type")
    named = _FILE_TYPES.get(file_type, "") if isinstance(file_type, int) else ""
    return named if named.startswith(inside) else inside


def _card(source: Source, header: Header, model: str) -> str:
    rows = [
        ("file", f"`{model}` ({source.size} bytes)"),
        ("imported from", f"`{_plain(source.path.name)}`"),
        ("origin", _plain(source.origin) or "not stated"),
        ("sha256", f"`{source.sha256}`"),
        ("licence", source.license),
        ("architecture", f"`{_plain(header.architecture)}`"),
        ("name in the file", f"`{_plain(str(header.metadata.get('general.name', '')))}`"),
        ("tensors", ", ".join(f"{count} {kind}" for kind, count in header.types.items())),
    ]
    table = "".join(f"| {what} | {value} |\n" for what, value in rows)
    return f"# {source.name}\n\nA model that was made elsewhere and imported as it is.\n\n| | |\n|---|---|\n{table}"


def _plain(text: str) -> str:
    """Text of strangers in a table cell: one short line, nothing that Markdown or a terminal acts on."""
    return "".join(c if c.isprintable() and c not in "`|<>[]\\" else " " for c in text[:200]).strip()
