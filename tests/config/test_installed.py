"""The command that adds an optional part, by how this installation came."""

from __future__ import annotations

import json
import re
import shlex
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from workbench.config.installed import NAME, command_for, install_command

HERE = Path(sys.prefix).parent  # the checkout, whose .venv this is
PIP = (sys.executable, "-m", "pip", "install")


@pytest.fixture
def installed(tmp_path: Path):
    """An installation as pip leaves it, with that ``direct_url.json``."""

    def make(origin: dict[str, object] | None) -> Distribution:
        folder = tmp_path / f"{NAME.replace('-', '_')}-0.1.0.dist-info"
        folder.mkdir()
        needs = ("pydantic>=2", "torch==2.13.0; extra == 'train'", 'Llama_Cpp.Python>=0.3; extra == "inference"')
        metadata = "".join(f"Requires-Dist: {line}\n" for line in needs)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {NAME}\nVersion: 0.1.0\n{metadata}")
        if origin is not None:
            (folder / "direct_url.json").write_text(json.dumps(origin))
        return Distribution.at(folder)

    return make


EDITABLE = {"editable": True}


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, (*PIP, f"{NAME}[train]==0.1.0")),
        ({"url": "file:///a%20b/w.whl", "archive_info": {}}, (*PIP, "/a b/w.whl[train]")),
        ({"url": "file:///src", "dir_info": {}}, (*PIP, "/src[train]")),
        ({"url": "file:///src", "dir_info": EDITABLE}, (*PIP, "-e", "/src[train]")),
        ({"url": HERE.as_uri(), "dir_info": EDITABLE}, (f"{HERE}/ci/setup", "train")),
        ({"url": "https://own.example/w.whl", "archive_info": {}}, (*PIP, f"{NAME}[train] @ https://own.example/w.whl")),
        (
            {"url": "https://own.example/r.git", "vcs_info": {"vcs": "git", "commit_id": "0" * 40}},
            (*PIP, f"{NAME}[train] @ git+https://own.example/r.git@{'0' * 40}"),
        ),
    ],
)  # fmt: skip
def test_the_command_is_that_of_where_the_installation_came_from(installed, origin, expected: tuple[str, ...]):
    assert tuple(shlex.split(install_command("train", installed(origin)))) == expected


@pytest.mark.parametrize(
    ("library", "wanted"), [("torch", "[train]"), ("llama-cpp-python", "[inference]"), ("pydantic", ""), ("other", "")]
)
def test_a_library_is_installed_by_the_extra_that_brings_it(installed, library: str, wanted: str):
    command = command_for(library, installed({"url": "file:///w.whl", "archive_info": {}}))
    assert shlex.split(command)[-1] == f"/w.whl{wanted}"


def test_this_installation_names_a_command_that_is_there():
    assert Path(shlex.split(install_command("train"))[0]).is_file()


def test_no_other_hint_tells_to_install_from_an_index():
    root = Path(__file__).parents[2]
    texts = [path for room in ("workbench", "agents", "hooks") for path in sorted((root / room).rglob("*.*"))]
    named = re.compile(r"\b(pip3?|pipx|uv|uvx) (-\S+ )*(install|add|run|tool)\b")
    found = [str(path) for path in texts if path.suffix in (".py", ".toml", ".md") and named.search(path.read_text())]
    assert len(texts) > 300
    assert not found
