"""What can be asked of the filter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from workbench.config.params import StageParams

# In order of preference: of several copies of a file, the one under the first of these is kept.
LICENSES = (
    "MIT", "Apache-2.0", "BSD-3-Clause", "BSD-2-Clause", "ISC", "0BSD", "MIT-0", "Zlib", "BSL-1.0", "Unlicense",
    "CC0-1.0", "Apache-2.0 WITH LLVM-exception", "PSF-2.0", "Python-2.0", "BSD-1-Clause",
    "BlueOak-1.0.0", "Unicode-3.0", "Unicode-DFS-2016",
)  # fmt: skip
FOLDERS = (
    "target/debug",
    "target/release",
    "vendor",
    "vendored",
    "third_party",
    "third-party",
    "node_modules",
    ".cargo",
    ".git",
)


class FilterParams(StageParams):
    """What is kept. ``compile`` asks rustc, in the sandbox, about each file alone, after every other rule:

    - ``off``: it is not asked;
    - ``record``: its answer stands in ``files.jsonl`` (ok, unresolved, error, timeout) and drops nothing;
    - ``require``: files that are wrong by themselves (error, timeout) are dropped. Files that only miss what lies
      outside them (other crates, modules, macros, features: unresolved) are kept, since no file of a crate is whole
      alone.

    The edition is that of the nearest ``Cargo.toml``; ``edition`` holds where there is none.
    """

    excluded_folders: tuple[str, ...] = FOLDERS
    max_bytes: int = Field(default=1_000_000, ge=1, le=4_000_000)
    max_line: int = Field(default=1000, ge=1)  # characters of the longest line
    max_mean_line: int = Field(default=100, ge=1)  # characters of the mean line
    licenses: tuple[str, ...] = Field(default=LICENSES, min_length=1)  # SPDX ids, in order of preference
    license_text: Literal["ignore", "agree", "require"] = "agree"  # agree: a text that is there must not contradict
    near_threshold: float = Field(default=0.7, ge=0.1, le=1.0)  # estimated Jaccard similarity; 1: exact copies only
    near_tokens: int = Field(default=5, ge=1, le=20)  # tokens of a shingle
    near_permutations: int = Field(default=256, ge=16, le=1024)
    compile: Literal["off", "record", "require"] = "off"
    edition: Literal["2015", "2018", "2021", "2024"] = "2021"
