"""What a package says of its licence, read as text from its metadata. No code is run, nothing is judged here."""

from __future__ import annotations

import email.errors
import email.parser
import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.corpus.cargo import read_manifest
from workbench.stages.crawl.params import LICENSE_FILES

METADATA_BYTES = 1 << 20
# Trove classifiers that name one licence exactly; the vague ones ("BSD License") name none.
CLASSIFIERS = {
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: The Unlicense (Unlicense)": "Unlicense",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
}


def declared(package: Path) -> str:
    """The licence expression of the package at ``package``: of its Python metadata, else of its Cargo manifest."""
    return _from_pkg_info(package / "PKG-INFO") or _from_cargo(package / "Cargo.toml")


def license_files(files: Sequence[str]) -> list[str]:
    """Those of ``files`` that by their name are licence texts and notices."""
    return [
        path
        for path in files
        if not path.endswith(".rs")
        and any(fnmatch.fnmatchcase(path.rsplit("/", 1)[-1].lower(), g) for g in LICENSE_FILES)
    ]


def _from_pkg_info(path: Path) -> str:
    data = _read(path)
    try:
        fields = email.parser.BytesParser().parsebytes(data, headersonly=True)
    except (email.errors.MessageError, ValueError, RecursionError):
        return ""
    if expression := str(fields.get("License-Expression", "")).strip():
        return expression
    text = str(fields.get("License", "")).strip()
    if text and "\n" not in text and len(text) <= 200 and text.upper() != "UNKNOWN":
        return text
    named = {CLASSIFIERS[str(c)] for c in fields.get_all("Classifier", []) if str(c) in CLASSIFIERS}
    return " OR ".join(sorted(named))


def _from_cargo(path: Path) -> str:
    manifest = read_manifest(path) or {}
    for table in (manifest.get("package"), _table(manifest.get("workspace")).get("package")):
        license = _table(table).get("license")
        if isinstance(license, str) and len(license) <= 200:
            return license.strip()
    return ""


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read(path: Path) -> bytes:
    if not path.is_file() or path.stat().st_size > METADATA_BYTES:
        return b""
    return path.read_bytes()
