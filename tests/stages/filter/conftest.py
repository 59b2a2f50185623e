"""Real Rust of many kinds, and a filter of packages made by hand, by the real stage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from workbench.app import stage_host
from workbench.corpus import jsonl, rows
from workbench.corpus.rows import PackageRow
from workbench.domain.events import Log
from workbench.stages.filter.spec import SPEC
from workbench.stages.filter.stage import run

RUST = """\
#![allow(dead_code)]
//! A module's documentation.
use std::{collections::HashMap, fmt};

/* a block
   comment */
/// Documentation of a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Point<'a, T: fmt::Debug + ?Sized> {
    name: &'a str, // its name
    value: Box<T>,
}

macro_rules! pair {
    ($a:expr, $b:expr $(,)?) => {
        ($a, $b)
    };
}

impl<'a, T: fmt::Debug + ?Sized> Point<'a, T> {
    pub const LIMIT: u64 = 0xFF_u64;

    pub async fn text(&self) -> Result<String, fmt::Error> {
        let plain = "two\\n words \\
            and more";
        let raw = r#"  raw "text"
   with lines  "#;
        let bytes = b"bytes\\x00";
        let character = '\\u{1F600}';
        let map: HashMap<&str, Vec<u8>> = HashMap::new();
        match (plain.len(), raw.len()) {
            (0, _) | (_, 0) if map.is_empty() => return Err(fmt::Error),
            (n @ 1..=9, _) => drop(n),
            _ => {}
        }
        let (a, _b) = pair!(bytes.len(), character);
        'outer: loop {
            for x in (0..a).rev().step_by(2) {
                if x > 3 { break 'outer; } else { continue }
            }
        }
        Ok(format!("{:?} {plain:>10} {}", self.value, raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn works() { assert_eq!(1 + 1, 2); }
}
"""


@pytest.fixture(scope="session")
def rust() -> str:
    return RUST


class Filter:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.raw = root / "raw"
        self.raw.mkdir()
        self._packages: list[PackageRow] = []
        self._count = 0
        self.said: list[str] = []

    def package(self, name: str, files: Mapping[str, bytes | str], *, license: str = "MIT") -> None:
        folder = self.raw / "packages" / name
        folder.mkdir(parents=True)
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data.encode() if isinstance(data, str) else data)
        texts = sorted(path for path in files if path.rsplit("/", 1)[-1].startswith(("LICENSE", "COPYING")))
        self._packages.append(PackageRow(name, name, "1", "path", license, "0" * 64, 1, "", len(files), texts))

    def run(self, *, workers: int = 1, **params: Any) -> Path:
        packages = sorted(self._packages, key=lambda row: row.package)
        jsonl.write(self.raw / "packages.jsonl", map(rows.row, packages))
        self._count += 1
        output = self.root / f"filtered-{self._count}"
        self.said = []
        stage_host.run_in_process(
            SPEC,
            run,
            inputs={"raw": self.raw},
            output=output,
            params=params,
            workers=workers,
            on_event=lambda event: self.said.append(event.text) if isinstance(event, Log) else None,
        )
        return output

    def rejected(self, output: Path) -> dict[str, tuple[str, str]]:
        found = [json.loads(line) for line in (output / "rejections.jsonl").read_text().splitlines()]
        return {row["path"]: (row["rule"], row["detail"]) for row in found}

    def kept(self, output: Path) -> dict[str, dict[str, Any]]:
        found = [json.loads(line) for line in (output / "files.jsonl").read_text().splitlines()]
        return {row["path"]: row for row in found}


@pytest.fixture
def filter(tmp_path: Path) -> Filter:
    return Filter(tmp_path)


@pytest.fixture
def mit() -> str:
    """The licence's text, as everyone writes it."""
    return (
        "MIT License\n\nCopyright (c) 2024 Somebody\n\nPermission is hereby granted, free of charge, to any person "
        'obtaining a copy of this software and associated documentation files (the "Software"), to deal in the '
        "Software without restriction, including without limitation the rights to use, copy, modify, merge, publish, "
        "distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is "
        "furnished to do so, subject to the following conditions:\n\nThe above copyright notice and this permission "
        "notice shall be included in all copies or substantial portions of the Software.\n\nTHE SOFTWARE IS PROVIDED "
        '"AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF '
        "MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR "
        "COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, "
        "TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN "
        "THE SOFTWARE.\n"
    )
