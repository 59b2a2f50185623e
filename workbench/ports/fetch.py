"""Bringing source code from elsewhere, pinned and verified, without running it. Adapters: ``workbench.fetch``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Source:
    """One line of a source list: ``kind`` is sdist, git, crate or path."""

    kind: str
    name: str
    version: str = ""  # exact version; for git the full commit id
    location: str = ""  # URL or path, for git and path
    sha256: str = ""  # of the archive, for sdist and crate; empty: recorded, not checked


@dataclass(frozen=True)
class Refusal:
    """A member of an archive or tree that was not taken, and why."""

    path: str
    rule: str  # absolute, parent, link, device, size, bomb, count, name, …
    detail: str = ""


@dataclass(frozen=True)
class Fetched:
    """What was fetched: ``files`` lie below the folder that was given; ``provenance`` says where they come from."""

    source: Source
    files: Sequence[str]
    refusals: Sequence[Refusal]
    provenance: Mapping[str, Any] = field(default_factory=dict)  # sha256, version, commit, licence: no host


class Fetcher(Protocol):
    def fetch(self, source: Source, into: Path, *, wanted: Sequence[str]) -> Fetched:
        """Bring ``source`` into the empty folder ``into``. Only regular files whose path matches a glob of ``wanted``
        are kept. UserError for a source that does not exist or a digest that differs; WorldError for the network."""
        ...
