"""Whether a program is there and works: what is on PATH may be a stand-in, or no program at all."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from workbench.domain.errors import ToolMissing
from workbench.system.programs import look, sysroot

PROXY = "echo 'error: rustup could not choose a version of {} to run' >&2; exit 1"
BROKEN = {  # what rustc does -> what is wrong with it, and what mends it
    "rustup's proxy without a toolchain": (PROXY.format("rustc"), "rustup could not choose", "rustup default stable"),
    "hangs": ("sleep 60", "does not answer within 0.5 s", "apt-get install rustc"),
    "hangs, and holds its output": ("sleep 60 & wait", "does not answer within 0.5 s", "apt-get install rustc"),
    "says nothing": ("exit 0", "answers nothing", "apt-get install rustc"),
    "prints nonsense": ("echo lorem ipsum", "prints 'lorem ipsum'", "apt-get install rustc"),
    "prints control characters": ("printf 'a\\033[2Jb'", "prints 'a [2Jb'", "apt-get install rustc"),
    "fails without a word": ("exit 3", "--version fails", "apt-get install rustc"),
    "has lost its toolchain": (
        'if [ "$1" = --version ]; then echo rustc 1.95.0; else echo /nowhere; fi',
        "the toolchain that it names is not there: '/nowhere'",
        "rustup default stable",
    ),
    "asks for a toolchain only when it works": (
        '[ "$1" = --version ] && echo rustc 1.95.0 && exit; echo "error: toolchain is not installed" >&2; exit 1',
        "toolchain is not installed",
        "rustup default stable",
    ),
}


def put(folder: Path, name: str, text: str, mode: int = 0o755) -> dict[str, str]:
    (folder / name).write_text(text)
    (folder / name).chmod(mode)
    return {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)}


@pytest.mark.parametrize("name", BROKEN)
def test_a_rustc_that_is_there_and_does_not_work_is_not_usable(tmp_path: Path, name: str) -> None:
    body, problem, fix = BROKEN[name]
    begun_s = time.monotonic()
    found = look("rustc", put(tmp_path, "rustc", f"#!/bin/sh\n{body}\n"), patience_s=0.5)
    assert problem in found.problem
    assert fix in found.fix
    assert time.monotonic() - begun_s < 30, "what it started is not waited for"
    with pytest.raises(ToolMissing, match="rustc cannot be used: "):
        found.usable()


def test_what_is_no_program_of_this_machine_is_not_usable(tmp_path: Path) -> None:
    assert "cannot be started" in look("rustc", put(tmp_path, "rustc", "\x7fELF no such machine")).problem
    only = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    put(tmp_path, "rustc", "#!/bin/sh\n", mode=0o644)
    found = look("rustc", only)
    assert (found.problem, found.fix) == (f"{tmp_path}/rustc is not executable", f"chmod +x {tmp_path}/rustc")


def test_an_absent_program_names_what_installs_it(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match=r"bwrap is not installed\n.*apt-get install bubblewrap"):
        look("bwrap", {"PATH": str(tmp_path)}).usable()


def test_a_cargo_is_asked_for_its_version_alone(tmp_path: Path) -> None:
    assert look("cargo", put(tmp_path, "cargo", "#!/bin/sh\necho cargo 1.95.0\n")).problem == ""
    assert "rustup" in look("cargo", put(tmp_path, "cargo", f"#!/bin/sh\n{PROXY.format('cargo')}\n")).problem


def test_a_tool_of_a_workspace_may_answer_what_it_likes(tmp_path: Path) -> None:
    found = look("shim", put(tmp_path, "shim", "#!/bin/sh\necho the shim\n"))
    assert (found.version, found.problem) == ("the shim", "")


@pytest.mark.skipif(shutil.which("rustc") is None, reason="rustc is not installed")
def test_the_rustc_of_this_machine_works_and_has_a_toolchain() -> None:
    found = look("rustc")
    assert found.version.startswith("rustc 1.")
    assert (sysroot(found) / "lib" / "rustlib").is_dir()


@pytest.mark.skipif(shutil.which("rustc") is None, reason="rustc is not installed")
def test_a_toolchain_that_is_not_on_the_path_is_found_in_cargos_folder(tmp_path: Path) -> None:
    (tmp_path / ".cargo" / "bin").mkdir(parents=True)
    (tmp_path / ".cargo" / "bin" / "rustc").symlink_to(os.path.realpath(str(shutil.which("rustc"))))
    assert look("rustc", {**os.environ, "PATH": str(tmp_path), "HOME": str(tmp_path), "CARGO_HOME": ""}).path
