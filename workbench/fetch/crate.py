"""A crate, through cargo's own client and whatever source it is configured with: a registry, a mirror, a folder.

``cargo vendor`` in a scratch project pinned to ``=version`` brings it; cargo checks it against its source's index. No
build code is run. The files are checked once more against the checksums that cargo wrote, and taken as a folder is.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.domain.errors import NotFound, UserError, WorldError
from workbench.fetch import names, programs
from workbench.fetch.downloads import digest_of_file
from workbench.fetch.limits import LIMITS, Limits
from workbench.fetch.path import PathFetcher
from workbench.ports.fetch import Fetched, Source

INSTALL = "apt-get install -y cargo"
CHECKSUMS = ".cargo-checksum.json"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\Z")
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(?:[-+][0-9A-Za-z.+-]+)?\Z")


class CrateFetcher:
    def __init__(self, limits: Limits = LIMITS, *, env: Mapping[str, str] | None = None) -> None:
        self._limits = limits
        self._env = env

    def fetch(self, source: Source, into: Path, *, wanted: Sequence[str]) -> Fetched:
        """See the port. ``sha256`` is that of the ``.crate`` archive, as cargo's lock file has it."""
        if not _NAME.match(source.name) or not _VERSION.match(source.version):
            raise UserError(
                f"{source.name!r} {source.version!r} is no crate and exact version",
                'write name = "itoa", version = "1.0.1"',
            )
        cargo = programs.find("cargo", INSTALL)
        with tempfile.TemporaryDirectory(prefix="workbench-crate-") as scratch:
            folder = self._vendor(cargo, source, Path(scratch))
            checksums = _checksums(folder)
            package = str(checksums.get("package") or "")
            if source.sha256 and package != source.sha256:
                raise UserError(
                    f"{source.name} {source.version} has checksum {package or 'none'}, not {source.sha256}",
                    "do not use it: compare with the checksum in a Cargo.lock that you trust",
                )
            taken = PathFetcher(self._limits).fetch(
                Source("path", source.name, source.version, str(folder)), into, wanted=wanted
            )
            _verify(into, taken.files, checksums.get("files") or {}, source)
        return replace(
            taken, source=source, provenance={**taken.provenance, "sha256": package or taken.provenance["sha256"]}
        )

    def _vendor(self, cargo: str, source: Source, scratch: Path) -> Path:
        """The folder in ``vendor/`` that holds exactly this crate."""
        (scratch / "src").mkdir()
        (scratch / "src" / "lib.rs").write_text("")
        (scratch / "Cargo.toml").write_text(
            '[package]\nname = "workbench-scratch"\nversion = "0.0.0"\nedition = "2021"\n\n'
            "[workspace]\n\n[dependencies.wanted]\ndefault-features = false\n"
            f'package = "{source.name}"\nversion = "={source.version}"\n'
        )
        done = programs.run(
            [cargo, "vendor", "--quiet", "--versioned-dirs", "--respect-source-config", "vendor"],
            env=self._env if self._env is not None else os.environ,
            cwd=scratch,
            wall_s=self._limits.wall_s,
        )
        folder = scratch / "vendor" / f"{source.name}-{source.version}"
        if done.code != 0:
            raise _explain(source, done.err)
        if not folder.is_dir():
            raise NotFound(f"cargo brought no {source.name} {source.version}", "check its spelling: `_` and `-` differ")
        return folder


def _explain(source: Source, error: str) -> UserError | WorldError:
    first = next((line for line in error.splitlines() if line.startswith("error")), error.strip()[:200] or "no message")
    text = f"cargo cannot bring {source.name} {source.version}: {names.shown(first.removeprefix('error: '))}"
    if "no matching package" in error or "failed to select a version" in error:
        return NotFound(text, "check the name and version, and the source in cargo's configuration")
    return WorldError(text, "check the network and cargo's configuration: cargo search NAME")


def _checksums(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / CHECKSUMS).read_bytes())
    except (OSError, ValueError):
        raise WorldError(f"cargo left no checksums for {folder.name}", "update cargo") from None
    return found if isinstance(found, dict) else {}


def _verify(into: Path, files: Sequence[str], sums: Mapping[str, str], source: Source) -> None:
    """Files that cargo has no checksum for (distributions' own folders have none) are taken as cargo gave them."""
    for path in files:
        if path in sums and digest_of_file(into / path) != sums[path]:
            raise UserError(
                f"{source.name} {source.version}: {path} is not what its checksum says",
                "clean cargo's cache and try again",
            )
