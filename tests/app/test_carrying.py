"""What is carried away is whole: damage is found where it can be mended, not where it arrives."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from workbench.app.carrying import bundle_names
from workbench.app.hub_host import install_hub
from workbench.domain.errors import Corrupt
from workbench.domain.manifest import Manifest
from workbench.domain.refs import Kind
from workbench.domain.version import Bump
from workbench.store.git.repository import GitRepository


def test_a_damaged_release_is_not_bundled_and_the_damage_is_named(tmp_path: Path) -> None:
    hub = install_hub(tmp_path / "hub.git")
    (tmp_path / "payload").mkdir()
    (tmp_path / "payload" / "a.gguf").write_bytes(random.Random(1).randbytes(500_000))
    with GitRepository(hub) as repository:
        staged = repository.artifacts.stage(tmp_path / "payload", Manifest(Kind.RELEASE, "rust", stage="test"))
        artifact = repository.artifacts.publish(staged, bump=Bump.MINOR, who="Ada <a@b.c>", why="a test")
        repository.maintain()
        bundle_names(repository, ["release/rust"], tmp_path / "whole", with_inputs=False)
    id = subprocess.run(
        ["git", "--git-dir", str(hub), "rev-parse", f"{artifact.commit}:payload/a.gguf"], capture_output=True, text=True
    ).stdout.strip()
    pack = max((hub / "objects" / "pack").glob("*.pack"), key=lambda path: path.stat().st_size)  # that of the payload
    pack.chmod(0o644)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    with GitRepository(hub) as repository:
        with pytest.raises(Corrupt, match=f"would be bundled is damaged.*{id}") as error:
            bundle_names(repository, ["release/rust"], tmp_path / "damaged", with_inputs=False)
    assert "pack-objects" in error.value.hint
    assert not (tmp_path / "damaged").exists()
