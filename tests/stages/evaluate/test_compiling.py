"""rustc's verdicts, also on source that means harm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.sandbox.bubblewrap import Bubblewrap
from workbench.stages.evaluate.compiling import ROUND, Compiler

GOOD = "pub fn f(x: u32) -> u32 { x + 1 }\n"
BAD = "pub fn f(x: u32) -> u32 { x + }\n"


@pytest.fixture
def compiler() -> Compiler:
    found = Compiler(Bubblewrap(), workers=2)
    refusal = found.refusal()
    if refusal:
        pytest.skip(refusal)
    return found


def test_verdicts_come_in_order_and_a_source_is_asked_about_once(compiler):
    before = compiler.asked
    assert compiler.check([GOOD, BAD, GOOD, BAD]) == [True, False, True, False]
    assert compiler.asked == before + 2
    assert compiler.check([BAD]) == [False]
    assert compiler.asked == before + 2


def test_types_and_borrows_are_checked_not_only_syntax(compiler):
    assert compiler.check(
        [
            'pub fn f() -> u32 { "x" }\n',
            "pub fn f(v: Vec<u8>) -> usize { let w = v; v.len() + w.len() }\n",
            "pub fn f() -> String { missing() }\n",
        ]
    ) == [False, False, False]


@pytest.mark.parametrize(
    "source",
    [
        'pub const S: &str = include_str!("/etc/hostname");',
        'pub const S: &[u8] = include_bytes!("/etc/passwd");',
        "pub const N: u32 = { loop {} };",
        "pub fn f() {" + "(" * 20_000 + ")" * 20_000 + "}",
        "\0\0\0",
        'pub const HOME: &str = env!("HOSTNAME");',
        'mod other; include!("/usr/include/stdio.h");',
    ],
    ids=["read a file", "read another file", "never end", "nest", "nul", "read a variable", "include C"],
)
def test_hostile_source_does_not_compile_and_does_no_harm(compiler, source: str):
    assert compiler.check([source]) == [False]


def test_rounds_end_when_enough_compile(compiler):
    sources = [GOOD.replace("f(", f"f{n}(") for n in range(3 * ROUND)]
    asked = []
    found = list(compiler.first_that_compile(sources, 5, lambda asked_, found_: asked.append((asked_, found_))))
    assert len(found) == ROUND
    assert asked == [(ROUND, ROUND)]


@pytest.mark.parametrize(
    "body", ["echo rustup could not choose a version >&2; exit 1", "echo rustc 1.95.0", "echo what"]
)
def test_a_rustc_that_cannot_be_used_is_a_reason_and_no_failure(compiler, tmp_path: Path, body: str):
    (tmp_path / "rustc").write_text(f"#!/bin/sh\n{body}\n")
    (tmp_path / "rustc").chmod(0o755)
    code = (
        "from workbench.sandbox.bubblewrap import Bubblewrap\n"
        "from workbench.stages.evaluate.compiling import Compiler\n"
        "print(Compiler(Bubblewrap(), 1).refusal())"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "rustc cannot be used: " in done.stdout
