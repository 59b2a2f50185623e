"""A crate, through cargo's own client and whatever source it is configured with: a registry, a mirror, a folder.

``cargo vendor`` in a scratch project pinned to ``=version`` brings it; cargo checks an archive against its registry's
index. A crate of a folder source is taken from its own folder: ``vendor`` follows links there and looks at no checksum.
No build code is run. The files are checked once more against the checksums beside them, and taken as a folder is.

A folder source may have no checksums of its files (distributions patch them, and keep upstream's archive checksum):
then nothing can be checked. The record says so by a line about the checksum file, and the digest that is recorded, and
that may be pinned, is that of the files, as for a source of kind path.
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
from workbench.domain.reading import BadInput, anything, mapping, parse_json
from workbench.fetch import names, programs
from workbench.fetch.downloads import digest_of_file
from workbench.fetch.limits import LIMITS, Limits
from workbench.fetch.path import PathFetcher
from workbench.ports.fetch import Fetched, Refusal, Source
from workbench.system.programs import look

_PLACE = re.compile(r"`?(?:[a-z+]+://|/)[^\s`]*`?")
_NOT_THERE = ("no matching package", "failed to select a version", "perhaps you meant", "candidate versions found")
CHECKSUMS = ".cargo-checksum.json"
UNCHECKED = Refusal(CHECKSUMS, "unchecked", "it has no checksums of files: they are taken as they are")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\Z")
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(?:[-+][0-9A-Za-z.+-]+)?\Z")


class CrateFetcher:
    def __init__(self, limits: Limits = LIMITS, *, env: Mapping[str, str] | None = None) -> None:
        self._limits = limits
        self._env = env

    def fetch(self, source: Source, into: Path, *, wanted: Sequence[str]) -> Fetched:
        """See the port. ``sha256`` is that of the ``.crate`` archive, as cargo's lock file has it; or of the files,
        where they come from a folder that has no checksums of them."""
        if not _NAME.match(source.name) or not _VERSION.match(source.version):
            raise UserError(
                f"{source.name!r} {source.version!r} is no crate and exact version",
                'write name = "itoa", version = "1.0.1"',
            )
        cargo = look("cargo").usable()
        with tempfile.TemporaryDirectory(prefix="workbench-crate-") as scratch:
            vendored = self._vendor(cargo, source, Path(scratch))
            folder = self._own_folder(cargo, source, Path(scratch)) or vendored
            checksums = _checksums(folder)
            sums = checksums.get("files") or {}
            archive = str(checksums.get("package") or "") if sums else ""
            if archive and source.sha256 not in ("", archive):
                raise _unpinned(
                    source, archive, "do not use it: compare with the checksum in a Cargo.lock that you trust"
                )
            taken = PathFetcher(self._limits).fetch(
                Source("path", source.name, source.version, str(folder)), into, wanted=wanted
            )
            if sums:
                _verify(into, taken.files, sums, source)
        own = archive or str(taken.provenance.get("sha256", ""))
        if source.sha256 and own and own != source.sha256:
            hint = f"nothing there can be checked; if you trust the files as they are, pin their digest: {own}"
            raise _unpinned(source, "none", hint)
        refusals = taken.refusals if sums else (*taken.refusals, UNCHECKED)
        return replace(taken, source=source, refusals=refusals, provenance={**taken.provenance, "sha256": own})

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

    def _own_folder(self, cargo: str, source: Source, scratch: Path) -> Path | None:
        """Where the crate lies in a folder source; None where cargo unpacked an archive."""
        done = programs.run(
            [cargo, "metadata", "--quiet", "--offline", "--format-version=1"],
            env=self._env if self._env is not None else os.environ,
            cwd=scratch,
            wall_s=self._limits.wall_s,
        )
        try:
            packages = json.loads(done.out)["packages"]
            manifest = next(
                Path(package["manifest_path"])
                for package in packages
                if package["name"] == source.name and package["version"] == source.version
            )
        except (ValueError, KeyError, TypeError, StopIteration):
            raise _explain(source, done.err) from None
        return manifest.parent if (manifest.parent / CHECKSUMS).is_file() else None


def _unpinned(source: Source, checksum: str, hint: str) -> UserError:
    return UserError(f"{source.name} {source.version} has checksum {checksum}, not {source.sha256}", hint)


def _explain(source: Source, error: str) -> UserError | WorldError:
    """cargo's last cause says most; where it looked (a registry's address, a folder) is left out."""
    cause = error.rpartition("Caused by:")[2].strip().splitlines() or ["no message"]
    why = _PLACE.sub("…", "; ".join(line.strip() for line in cause if line is cause[0] or "candidate" in line))
    why = why.removeprefix("error: ")
    text = f"cargo cannot bring {source.name} {source.version}: {names.shown(why)}"
    if any(known in error for known in _NOT_THERE):
        return NotFound(text, "check the name and version, and the source in cargo's configuration")
    if "checksum" in error:
        return UserError(text, "do not use it: the source's files are not what its checksums say")
    return WorldError(text, "check the network and cargo's configuration: cargo search NAME")


def _checksums(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = mapping(anything()).read(parse_json((folder / CHECKSUMS).read_bytes()), "")
    except (OSError, BadInput):
        raise WorldError(f"cargo left no checksums for {folder.name}", "update cargo") from None
    return found


def _verify(into: Path, files: Sequence[str], sums: Mapping[str, str], source: Source) -> None:
    for path in files:
        if digest_of_file(into / path) != sums.get(path):
            raise UserError(
                f"{source.name} {source.version}: {path} is not what its checksum says",
                "clean cargo's cache and try again",
            )
