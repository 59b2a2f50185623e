"""Crates, through the real cargo and a folder source with real checksums. No build script runs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from workbench.domain.errors import NotFound, ToolMissing, UserError, WorldError
from workbench.fetch.crate import CrateFetcher
from workbench.fetch.limits import Limits
from workbench.ports.fetch import Fetched, Source

pytestmark = pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not installed")

WANTED = ("*.rs", "Cargo.toml", "LICENSE*")
PACKAGE = hashlib.sha256(b"tiny-1.0.0.crate").hexdigest()
MANIFEST = """\
[package]
name = "{name}"
version = "{version}"
edition = "2021"
license = "MIT"
build = "build.rs"
{more}
"""
FILES = {
    "src/lib.rs": b"pub fn tiny() -> u8 {\n    1\n}\n",
    "build.rs": b'fn main() { std::fs::write("/tmp/workbench-build-script-ran", "x").unwrap(); }\n',
    "LICENSE-MIT": b"Permission is hereby granted\n",
    "README.md": b"# tiny\n",
}


class Registry:
    """A folder source of cargo: a folder for each crate, with ``.cargo-checksum.json``."""

    def __init__(self, root: Path) -> None:
        self.root = root / "registry"
        self.root.mkdir()
        self.home = root / "cargo-home"
        self.home.mkdir()
        (self.home / "config.toml").write_text(
            f'[source.crates-io]\nreplace-with = "local"\n[source.local]\ndirectory = "{self.root}"\n'
        )
        self.env = {**os.environ, "CARGO_HOME": str(self.home), "CARGO_NET_OFFLINE": "true"}
        if toolchains := os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup")):
            self.env["RUSTUP_HOME"] = toolchains

    def add(
        self,
        name: str = "tiny",
        version: str = "1.0.0",
        *,
        more: str = "",
        sums: bool = True,
        package: str | None = "",
        **files: bytes,
    ) -> Path:
        folder = self.root / f"{name}-{version}"
        manifest = MANIFEST.format(name=name, version=version, more=more).encode()
        for path, data in {**FILES, "Cargo.toml": manifest, **files}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        listed = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
        (folder / ".cargo-checksum.json").write_text(
            json.dumps({"files": listed if sums else {}, "package": package or (PACKAGE if sums else None)})
        )
        return folder


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def fetch(
    registry: Registry, tmp_path: Path, name: str = "tiny", version: str = "1.0.0", sha256: str = "", into: str = "into"
) -> Fetched:
    (tmp_path / into).mkdir()
    source = Source("crate", name, version, "", sha256)
    return CrateFetcher(env=registry.env).fetch(source, tmp_path / into, wanted=WANTED)


def test_a_crate_is_brought_as_it_stands_in_its_source(registry: Registry, tmp_path: Path):
    folder = registry.add()
    done = fetch(registry, tmp_path, sha256=PACKAGE)
    assert done.files == ("Cargo.toml", "LICENSE-MIT", "build.rs", "src/lib.rs")
    assert all((tmp_path / "into" / path).read_bytes() == (folder / path).read_bytes() for path in done.files)
    assert done.provenance["sha256"] == PACKAGE
    assert done.refusals == ()
    assert not Path("/tmp/workbench-build-script-ran").exists()


def test_of_several_versions_the_pinned_one_is_brought(registry: Registry, tmp_path: Path):
    registry.add(version="1.0.0")
    registry.add(version="1.0.1", **{"src/lib.rs": b"pub fn newer() {}\n"})
    fetch(registry, tmp_path, version="1.0.0")
    assert b"tiny" in (tmp_path / "into" / "src/lib.rs").read_bytes()


def test_dependencies_are_not_taken(registry: Registry, tmp_path: Path):
    registry.add("other")
    registry.add(more='[dependencies]\nother = "1"')
    done = fetch(registry, tmp_path)
    assert len(done.files) == 4


@pytest.mark.parametrize("package", [None, PACKAGE], ids=["of nothing", "of the archive alone"])
def test_a_source_without_checksums_is_taken_as_it_is_and_the_record_says_so(
    registry: Registry, tmp_path: Path, package: str | None
):
    """As a distribution has them: patched files, and the checksum of the archive that they once came from."""
    folder = registry.add(sums=False, package=package)
    done = fetch(registry, tmp_path)
    assert len(done.files) == 4
    assert [(refusal.path, refusal.rule) for refusal in done.refusals] == [(".cargo-checksum.json", "unchecked")]
    lines = [f"{hashlib.sha256((folder / path).read_bytes()).hexdigest()}  {path}\n" for path in done.files]
    assert done.provenance["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_what_no_checksum_vouches_for_can_be_pinned_by_its_own_digest_and_not_by_the_archives(
    registry: Registry, tmp_path: Path
):
    folder = registry.add(sums=False, package=PACKAGE)
    with pytest.raises(UserError, match="has checksum none") as caught:
        fetch(registry, tmp_path, sha256=PACKAGE)
    digest = caught.value.hint.rpartition(" ")[2]
    assert fetch(registry, tmp_path, sha256=digest, into="pinned").provenance["sha256"] == digest
    (folder / "src" / "lib.rs").write_bytes(b"pub fn evil() {}\n")
    with pytest.raises(UserError, match="has checksum none"):
        fetch(registry, tmp_path, sha256=digest, into="changed")


@pytest.mark.parametrize("change", ["other", "added"])
def test_files_that_are_not_what_the_sources_checksums_say_are_refused(registry: Registry, tmp_path: Path, change: str):
    folder = registry.add()
    (folder / "src" / ("lib.rs" if change == "other" else "added.rs")).write_bytes(b"pub fn evil() {}\n")
    with pytest.raises(UserError, match=r"src/\w+\.rs is not what its checksum says"):
        fetch(registry, tmp_path)


def test_another_archive_than_the_pinned_one_is_refused(registry: Registry, tmp_path: Path):
    registry.add()
    with pytest.raises(UserError, match=f"has checksum {PACKAGE}, not a{{64}}"):
        fetch(registry, tmp_path, sha256="a" * 64)


def test_a_pin_is_not_met_by_a_source_without_checksums(registry: Registry, tmp_path: Path):
    registry.add(sums=False)
    with pytest.raises(UserError, match="has checksum none"):
        fetch(registry, tmp_path, sha256=PACKAGE)


def test_a_missing_version_is_not_found_and_names_those_that_are_there(registry: Registry, tmp_path: Path):
    registry.add()
    with pytest.raises(NotFound, match=r"cannot bring tiny 2\.0\.0: .*1\.0\.0") as caught:
        fetch(registry, tmp_path, version="2.0.0")
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("name", ["tinny", "Tiny"])
def test_a_missing_crate_is_not_found(registry: Registry, tmp_path: Path, name: str):
    registry.add()
    with pytest.raises(NotFound, match="no matching package") as caught:
        fetch(registry, tmp_path, name)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("tiny", "1"), ("tiny", "^1.0.0"), ("tiny", "1.0.0\n"), ("tiny", ""), ("", "1.0.0"), ("-x", "1.0.0"),
        ('tiny"\nbuild = "evil.rs', "1.0.0"), ("tiny", '1.0.0"\n[patch]'), ("../tiny", "1.0.0"),
    ],
)  # fmt: skip
def test_what_is_no_name_or_no_exact_version_never_reaches_cargo(
    registry: Registry, tmp_path: Path, name: str, version: str
):
    with pytest.raises(UserError, match="is no crate and exact version"):
        fetch(registry, tmp_path, name, version)


def test_a_version_with_build_metadata_is_one_version(registry: Registry, tmp_path: Path):
    registry.add(version="1.0.0+built.1")
    assert fetch(registry, tmp_path, version="1.0.0+built.1").files


@pytest.mark.parametrize("broken", ["checksums", "manifest", "no manifest"])
def test_a_broken_source_is_told_by_cargos_own_words(registry: Registry, tmp_path: Path, broken: str):
    folder = registry.add()
    if broken == "checksums":
        (folder / ".cargo-checksum.json").write_text("{")
    elif broken == "manifest":
        (folder / "Cargo.toml").write_text("[package")
    else:
        (folder / "Cargo.toml").unlink()
    with pytest.raises((WorldError, UserError), match=r"cannot bring tiny 1\.0\.0: \w+"):
        fetch(registry, tmp_path)


@pytest.mark.parametrize("sums", [True, False])
def test_links_and_hostile_names_in_a_crate_are_left_out(registry: Registry, tmp_path: Path, sums: bool):
    folder = registry.add(sums=sums)
    (folder / "src" / "link.rs").symlink_to("/etc/passwd")
    (folder / "src" / "LIB.rs").write_bytes(b"pub fn evil() {}\n")
    (folder / "src" / "aux.rs").write_bytes(b"pub fn evil() {}\n")
    if sums:
        with pytest.raises(UserError, match=r"LIB\.rs is not what its checksum says"):
            fetch(registry, tmp_path)
        (folder / "src" / "LIB.rs").unlink()
    done = fetch(registry, tmp_path) if not sums else fetch(registry, tmp_path, into="again")
    unchecked = {("src/lib.rs", "case"), (".cargo-checksum.json", "unchecked")}
    expected = {("src/aux.rs", "name"), ("src/link.rs", "link")} | (set() if sums else unchecked)
    assert {(row.path, row.rule) for row in done.refusals} == expected


def test_a_cargo_that_does_not_end_is_ended(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    slow = tmp_path / "bin" / "cargo"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\n[ $1 = --version ] && echo cargo 1.0.0 && exit\nsleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    (tmp_path / "into").mkdir()
    fetcher = CrateFetcher(Limits(wall_s=0.2), env=registry.env)
    with pytest.raises(WorldError, match=r"cargo did not end within 0\.2 s"):
        fetcher.fetch(Source("crate", "tiny", "1.0.0"), tmp_path / "into", wanted=WANTED)


def test_without_cargo_it_says_how_to_install_it(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CARGO_HOME", str(tmp_path))
    with pytest.raises(ToolMissing, match=r"cargo is not installed\n.*install"):
        fetch(registry, tmp_path)


def test_a_cargo_without_a_toolchain_is_not_called_a_bad_network(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "cargo").write_text(
        "#!/bin/sh\necho 'error: rustup could not choose a version of cargo to run' >&2\nexit 1\n"
    )
    (tmp_path / "cargo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ToolMissing, match="cargo cannot be used: rustup could not choose") as caught:
        fetch(registry, tmp_path)
    assert caught.value.hint == "rustup default stable"


# --- archives: what a registry serves ---------------------------------------------------------------------------------


class Archives(Registry):
    """A local registry of cargo: ``.crate`` archives, and an index with their checksums."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        (self.home / "config.toml").write_text(
            f'[source.crates-io]\nreplace-with = "local"\n[source.local]\nlocal-registry = "{self.root}"\n'
        )

    def add_archive(self, *, sha256: str = "", **members: bytes) -> str:
        """``tiny`` 1.0.0; the checksum that the index gives."""
        manifest = MANIFEST.format(name="tiny", version="1.0.0", more="").encode()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for path, data in sorted({**FILES, "Cargo.toml": manifest, **members}.items()):
                entry = tarfile.TarInfo(f"tiny-1.0.0/{path}")
                entry.size, entry.mode = len(data), 0o644
                archive.addfile(entry, io.BytesIO(data))
        (self.root / "tiny-1.0.0.crate").write_bytes(buffer.getvalue())
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        index = self.root / "index" / "ti" / "ny" / "tiny"
        index.parent.mkdir(parents=True)
        row = {"name": "tiny", "vers": "1.0.0", "deps": [], "features": {}, "cksum": sha256 or digest, "yanked": False}
        index.write_text(json.dumps(row) + "\n")
        return digest


@pytest.fixture
def archives(tmp_path: Path) -> Archives:
    return Archives(tmp_path)


def test_a_crate_of_a_registry_is_unpacked_by_cargo_and_checked_against_its_index(archives: Archives, tmp_path: Path):
    digest = archives.add_archive()
    done = fetch(archives, tmp_path, sha256=digest)
    assert done.files == ("Cargo.toml", "LICENSE-MIT", "build.rs", "src/lib.rs")
    assert (tmp_path / "into" / "src" / "lib.rs").read_bytes() == FILES["src/lib.rs"]
    assert done.provenance["sha256"] == digest
    assert not Path("/tmp/workbench-build-script-ran").exists()


def test_an_archive_that_is_not_what_the_index_says_is_refused(archives: Archives, tmp_path: Path):
    archives.add_archive(sha256="0" * 64)
    with pytest.raises(UserError, match="checksum"):
        fetch(archives, tmp_path)


def test_an_archive_that_is_not_the_pinned_one_is_refused(archives: Archives, tmp_path: Path):
    archives.add_archive()
    with pytest.raises(UserError, match="has checksum"):
        fetch(archives, tmp_path, sha256="1" * 64)
    assert list((tmp_path / "into").iterdir()) == []
