"""The file from outside: measured, not believed, and under a licence that has a name."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from workbench.domain.errors import NotFound, UserError
from workbench.domain.ids import Digest
from workbench.domain.refs import check_name

LONGEST_LICENSE = 500  # characters


@dataclass(frozen=True)
class Source:
    """What a person says of a file (its name here, licence and origin), and what the file is."""

    path: Path
    name: str
    license: str  # an SPDX expression
    origin: str

    @classmethod
    def of(cls, path: Path, *, name: str, license: str, origin: str) -> Source:
        """Checked; the path without links in it. NotFound, or UserError for a wrong name or licence."""
        check_name(name, "artifact name")
        license = spdx_expression(license)
        path = Path(os.path.realpath(path))
        if not path.is_file():
            problem = f"{path} is no plain file" if path.exists() else f"no such file: {path}"
            raise NotFound(problem, "give the path of a .gguf or .jsonl file")
        return cls(path, name, license, origin)

    @cached_property
    def size(self) -> int:
        return self.path.stat().st_size

    @cached_property
    def sha256(self) -> Digest:
        with self.path.open("rb") as stream:
            return Digest(hashlib.file_digest(stream, "sha256").hexdigest())


def spdx_expression(license: str) -> str:
    """The expression in SPDX's own spelling; UserError where it is not one."""
    from license_expression import ExpressionError, ExpressionParseError, get_spdx_licensing

    problem = "it is empty" if not license.strip() else "it is too long" if len(license) > LONGEST_LICENSE else ""
    if not problem:
        try:
            # Not ``validate()``: it raises AttributeError for "MIT OR", and takes the empty text for a licence "None".
            return str(get_spdx_licensing().parse(license, validate=True, strict=True))
        except (ExpressionError, ExpressionParseError, RecursionError) as error:
            problem = " ".join(str(error).split())
    raise UserError(f"not an SPDX licence expression: {license[:200]!r} ({problem})", "for example Apache-2.0 OR MIT")
