"""A byte that changed in a pack or a loose object is reported, or nothing that the ref reaches depends on it.

What "nothing depends on it" means is judged by another reader: dulwich reads every object that the ref reaches, and
finds the bytes that were written.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import dulwich.errors
import dulwich.repo
import pytest

from workbench.app.hub_host import install_hub
from workbench.app.verifying import verify_all, verify_ref
from workbench.domain.errors import WorkbenchError
from workbench.domain.manifest import Manifest
from workbench.domain.refs import Kind
from workbench.domain.version import Bump
from workbench.pipeline.integrity import MAX_NAMED, whole
from workbench.ports.store import Finding
from workbench.store.git.repository import GitRepository

WHO = "Ann <ann@localhost>"
REF = "release/rust"


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["git", "-C", str(folder), *arguments], input=stdin, check=True, capture_output=True).stdout


def make(folder: Path, layout: str) -> Path:
    """A hub with two artifacts that share a file, and a line of text that deltas well; packed as ``layout`` says."""
    path = install_hub(folder / "hub.git")
    pick = random.Random(5)
    with GitRepository(path) as repository:
        for number in range(2):
            payload = folder / f"payload-{number}"
            (payload / "folder").mkdir(parents=True)
            lines = [f"line {line} of {number if line == 40 else 'all'}\n" for line in range(400)]
            (payload / "folder" / "text.txt").write_text("".join(lines))
            (payload / "weights.bin").write_bytes(pick.randbytes(3000))
            (payload / "shared.bin").write_bytes(b"\1\2\3" * 500)
            manifest = Manifest(Kind.RELEASE, "rust" if number else "other", stage="test")
            staged = repository.artifacts.stage(payload, manifest)
            repository.artifacts.publish(staged, bump=Bump.MINOR, who=WHO, why="a test")
    if layout == "loose":
        packs = list((path / "objects" / "pack").glob("*.pack"))
        data = [pack.read_bytes() for pack in packs]
        for file in (path / "objects" / "pack").iterdir():
            file.unlink()
        for pack in data:
            git(path, "unpack-objects", "-q", stdin=pack)
    if layout == "deltas":
        git(path, "-c", "core.bigFileThreshold=1g", "repack", "-adfq", "--window=50")
        git(path, "multi-pack-index", "write", "--bitmap")
    return path


def files_of(hub: Path) -> list[Path]:
    loose = [path for path in (hub / "objects").glob("[0-9a-f][0-9a-f]/*") if path.is_file()]
    return sorted([*loose, *(hub / "objects" / "pack").glob("*.pack")])


def contents(hub: Path) -> dict[str, bytes]:
    """Every object that the release reaches, as dulwich reads it."""
    names = git(hub, "rev-list", "--objects", "--no-object-names", "refs/tags/release/rust/v1.0.0").decode().split()
    tag = git(hub, "rev-parse", "refs/tags/release/rust/v1.0.0").decode().strip()
    with dulwich.repo.Repo(str(hub)) as repository:
        return {name: repository[name.encode()].as_raw_string() for name in [*names, tag]}


@dataclass(frozen=True)
class Whole:
    """A good repository, what is in it, and where copies of it are made."""

    hub: Path
    objects: Mapping[str, bytes]
    place: Path

    def copy(self) -> Path:
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.hub, self.place)
        return self.place


def made(folder: Path, layout: str) -> Whole:
    hub = make(folder, layout)
    assert faults(hub) == []
    assert faults(hub, lambda repository: list(repository.check())) == []
    return Whole(hub, contents(hub), folder / "copy.git")


@pytest.fixture(scope="module", params=["loose", "packed", "deltas"])
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return made(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Each object a file of its own, so that one can be damaged alone."""
    return made(tmp_path_factory.mktemp("each"), "loose")


def faults(hub: Path, check: Callable[[GitRepository], list[Finding]] | None = None) -> list[str]:
    """What ``workbench verify REF`` reports, as errors; one that is raised ends the command with its own exit code."""
    try:
        with GitRepository(hub) as repository:
            found = check(repository) if check else list(verify_ref(repository, REF))
    except WorkbenchError as error:
        return [error.what]
    assert all(finding.fix for finding in found if finding.severity == "error")
    return [finding.what for finding in found if finding.severity == "error"]


def flip(path: Path, pick: random.Random) -> int:
    """Change one byte; where."""
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    at = pick.randrange(len(data))
    data[at] ^= pick.choice([1 << pick.randrange(8), pick.randrange(1, 256)])
    path.write_bytes(data)
    return at


def is_reported_or_harmless(good: Whole, seed: int) -> bool:
    """Whether it was reported; an assertion fails where it was not and something reads otherwise."""
    pick = random.Random(seed)
    hub = good.copy()
    path = pick.choice(files_of(hub))
    at = flip(path, pick)
    if faults(hub):
        return True
    if faults(hub, lambda repository: list(repository.check())):
        return True
    try:
        found = contents(hub)
    except (dulwich.errors.ObjectFormatException, KeyError, AssertionError, zlib.error) as error:
        pytest.fail(f"seed {seed}: byte {at} of {path.name} was not reported, and dulwich cannot read it: {error!r}")
    assert found == good.objects, f"seed {seed}: byte {at} of {path.name} changes an object, and nothing says so"
    return False


def test_a_changed_byte_is_reported_or_nothing_depends_on_it(good: Whole) -> None:
    reported = sum(is_reported_or_harmless(good, seed) for seed in range(60))
    assert reported >= 15


@pytest.mark.long
@pytest.mark.parametrize("quarter", range(4))  # each within the time of any test, also beside one that takes both cores
def test_two_thousand_changed_bytes_are_reported_or_nothing_depends_on_them(good: Whole, quarter: int) -> None:
    first = int(os.environ.get("WORKBENCH_SEED", "1000")) + 500 * quarter
    reported = sum(is_reported_or_harmless(good, seed) for seed in range(first, first + 500))
    assert reported >= 125


def test_every_object_that_the_ref_reaches_is_looked_at(loose: Whole) -> None:
    """Each in turn is replaced by another of its kind: the name no longer fits."""
    for name, data in loose.objects.items():
        hub = loose.copy()
        path = hub / "objects" / name[:2] / name[2:]
        raw = zlib.decompress(path.read_bytes())
        assert raw.endswith(data)
        path.chmod(0o644)
        path.write_bytes(zlib.compress(raw[:-1] + bytes([raw[-1] ^ 1])))
        found = faults(hub)
        assert any(name in what for what in found), (name, found)


def test_what_the_ref_does_not_reach_is_reported_by_verify_of_all_alone(loose: Whole) -> None:
    hub = loose.copy()
    other = git(hub, "rev-parse", "refs/tags/release/other/v1.0.0:payload/weights.bin").decode().strip()
    path = hub / "objects" / other[:2] / other[2:]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    assert faults(hub) == []
    found = faults(hub, lambda repository: list(verify_all(repository)))
    assert any(what.startswith("release/other/v1.0.0: blob ") and other in what for what in found)
    assert not any(what.startswith("release/rust") for what in found)


def test_a_damaged_second_copy_is_reported_by_verify_of_all(good: Whole) -> None:
    """git reads the other one, so no ref depends on it, until that one goes."""
    hub = good.copy()
    victim = git(hub, "rev-parse", "refs/tags/release/rust/v1.0.0:payload/weights.bin").decode().strip()
    name = git(hub, "pack-objects", "-q", "objects/pack/pack", stdin=victim.encode()).decode().strip()
    pack = hub / "objects" / "pack" / f"pack-{name}.pack"
    pack.chmod(0o644)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 0xFF
    pack.write_bytes(data)
    found = faults(hub, lambda repository: list(verify_all(repository)))
    assert f"{pack.name}: its copy of object {victim} is damaged" in found


def test_the_command_that_is_named_brings_the_object_back(good: Whole) -> None:
    hub = good.copy()
    victim = git(hub, "rev-parse", "refs/tags/release/rust/v1.0.0:payload/weights.bin").decode().strip()
    _damage(hub, victim)
    with GitRepository(hub) as repository:
        (fix, *_) = [f.fix for f in verify_ref(repository, REF) if f.severity == "error" and victim in f.what]
    command = re.sub(r"^.*?: ", "", fix).replace("CLONE", str(good.hub))
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert faults(hub) == []


def _damage(hub: Path, victim: str) -> None:
    """Change a byte in the middle of the object's place."""
    loose = hub / "objects" / victim[:2] / victim[2:]
    if loose.exists():
        path, middle = loose, loose.stat().st_size // 2
    else:
        for path in (hub / "objects" / "pack").glob("*.pack"):
            rows = git(hub, "verify-pack", "-v", str(path)).decode().splitlines()
            found = [row.split() for row in rows if row.startswith(victim)]
            if found:
                middle = int(found[0][4]) + int(found[0][3]) // 2
                break
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(middle)
        byte = file.read(1)[0]
        file.seek(middle)
        file.write(bytes([byte ^ 0xFF]))


def test_versions_branches_and_full_refs_can_be_verified_too(good: Whole) -> None:
    with GitRepository(good.copy()) as repository:
        commit = repository.resolve(REF)
        for name in ("refs/workbench/ledger", "refs/tags/release/rust/v1.0.0", "release/rust/v1.0.0", commit):
            found = verify_ref(repository, name)
            assert found[0].severity == "ok"
            assert re.match(r"\d+ objects have", found[0].what)


def test_many_faults_are_counted_and_the_first_ones_named(loose: Whole) -> None:
    hub = loose.copy()
    with GitRepository(hub) as repository:
        files = {f"{number:03d}": b"%d" % number for number in range(50)}
        tree = repository.objects.add_tree(None, files)
        for entry in repository.objects.list(tree):
            (hub / "objects" / entry.id[:2] / entry.id[2:]).unlink()
        found = list(whole(repository.objects, [tree], hub))
    assert len(found) == MAX_NAMED + 2
    assert found[MAX_NAMED].what == f"{50 - MAX_NAMED} more objects cannot be read"
    assert f"echo {tree} |" in found[MAX_NAMED].fix
    assert found[-1].what.startswith("1 objects have")


def test_a_blob_that_is_too_large_to_be_held_is_hashed_as_it_streams(tmp_path: Path) -> None:
    """git itself does not look at the hash of what it streams."""
    hub = install_hub(tmp_path / "hub.git")
    with GitRepository(hub) as repository:
        data = bytes((64 << 20) + 1)
        blob = repository.objects.add_blob(data)
        tree = repository.objects.add_tree(None, {"large.bin": blob})
        assert [finding.severity for finding in whole(repository.objects, [tree], hub)] == ["ok"]
        path = hub / "objects" / blob[:2] / blob[2:]
        path.chmod(0o644)
        path.write_bytes(zlib.compress(b"blob %d\0" % len(data) + data[:-1] + b"\1", 1))
        found = [f.what for f in whole(repository.objects, [tree], hub) if f.severity == "error"]
    assert found == [f"blob {blob}: it does not have the bytes of its name"]


def test_the_command_ends_with_another_exit_code_and_says_what_to_do(loose: Whole) -> None:
    hub = loose.copy()
    victim = git(hub, "rev-parse", "refs/tags/release/rust/v1.0.0:payload/weights.bin").decode().strip()
    _damage(hub, victim)
    command = [sys.executable, "-m", "workbench.cli.entry", "verify", REF, "--repo", str(hub)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"ERROR blob {victim}" in done.stdout
    assert f"mend: from a clone that has it whole: echo {victim} | git -C CLONE pack-objects" in done.stdout
