"""What a package says of its licence: read, never run, never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.stages.crawl import licenses

MIT = "License :: OSI Approved :: MIT License"
APACHE = "License :: OSI Approved :: Apache Software License"


@pytest.mark.parametrize(
    ("metadata", "manifest", "expected"),
    [
        ("License-Expression: MIT OR Apache-2.0\nLicense: other\n", "", "MIT OR Apache-2.0"),
        ("License: BSD-3-Clause\n", "", "BSD-3-Clause"),
        ("License: UNKNOWN\n", '[package]\nlicense = "ISC"\n', "ISC"),
        ("License: " + "x" * 300 + "\n", "", ""),
        (f"Classifier: {MIT}\nClassifier: {APACHE}\n", "", "Apache-2.0 OR MIT"),
        ("Classifier: License :: OSI Approved :: BSD License\n", "", ""),
        ("", '[package]\nlicense = "MIT"\n', "MIT"),
        ("", '[workspace.package]\nlicense = "MIT"\n[package]\nlicense.workspace = true\n', "MIT"),
        ("", '[package]\nlicense = ["MIT"]\n', ""),
        ("", "package = 1\nworkspace = []\n", ""),
        ("", "[package", ""),
        ("", "a = " + "[" * 5000, ""),
    ],
)
def test_the_declaration_is_taken_from_metadata_then_from_the_manifest(
    tmp_path: Path, metadata: str, manifest: str, expected: str
):
    (tmp_path / "PKG-INFO").write_text(metadata)
    (tmp_path / "Cargo.toml").write_text(manifest)
    assert licenses.declared(tmp_path) == expected


def test_a_package_that_says_nothing_declares_nothing(tmp_path: Path):
    assert licenses.declared(tmp_path) == ""


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_garbage_declares_something_on_one_line_or_nothing(metadata: bytes, manifest: bytes):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "PKG-INFO").write_bytes(metadata)
        (Path(folder) / "Cargo.toml").write_bytes(manifest)
        assert len(licenses.declared(Path(folder))) <= 200


def test_licence_texts_are_told_by_their_names():
    paths = ["LICENSE", "a/LICENCE-MIT.txt", "COPYING", "src/license.rs", "NOTICE", "README", "unlicense.md"]
    assert licenses.license_files(paths) == ["LICENSE", "a/LICENCE-MIT.txt", "COPYING", "NOTICE", "unlicense.md"]
