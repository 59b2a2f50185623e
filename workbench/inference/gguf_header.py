"""A model file's header checked by name, so that llama.cpp never sees one that is out of bounds. Not here: the bounds
themselves (``domain.gguf``)."""

from __future__ import annotations

from pathlib import Path

from workbench.domain.errors import Corrupt, NotFound
from workbench.domain.gguf import Header, HostileHeader, parse_header


def read_header(path: Path) -> Header:
    """Read and check the header of a GGUF file. Corrupt, with the reason, when any bound does not hold; NotFound when
    there is no such file."""
    try:
        with path.open("rb") as file:
            return parse_header(file, path.stat().st_size)
    except FileNotFoundError as error:
        raise NotFound(f"no such model file: {path}", "give the path of a .gguf file") from error
    except HostileHeader as error:
        raise Corrupt(
            f"{path.name} is not a model that can be loaded: {error}",
            "fetch the file again and compare its sha256, or ask who made it",
        ) from error
