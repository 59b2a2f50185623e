"""Doctor tries things out: what works is told with what it cost, what crashes, hangs or is not there as such."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from workbench.app.proofs import PROOFS, REF, Proof, prove
from workbench.store.git.settings import init_hub


def of(name: str) -> Sequence[Proof]:
    found = [proof for proof in PROOFS if proof.label.startswith(name)]
    assert found
    return found


def python(folder: Path, *, where: str, instead: str) -> str:
    """An interpreter that does something else where its command says ``where``."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\ncase "$*" in *{where}*) {instead};; esac\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_all_that_is_installed_here_works_and_says_what_it_cost() -> None:
    found = prove()
    assert [finding.data.get("proof") for finding in found if finding.severity == "ok"] == [
        proof.label for proof in PROOFS
    ], found
    assert all(finding.what.endswith(f"{finding.data['ms']:,} ms)") and not finding.fix for finding in found)


def test_the_ref_is_moved_on_the_disk_of_the_repository_and_nothing_stays_there(tmp_path: Path) -> None:
    place = init_hub(tmp_path / "hub.git") / "workbench"
    place.mkdir(exist_ok=True)
    (found,) = prove([REF], within=place)
    assert found.severity == "ok", found
    assert os.listdir(place) == []


def test_a_crash_is_an_error_of_that_proof_alone_with_what_mends_it(tmp_path: Path) -> None:
    null = f"exec {sys.executable} -c 'import ctypes; ctypes.string_at(0)'"
    f16, q8, _ = prove(of("llama.cpp"), python=python(tmp_path, where="Q8_0", instead=null))
    assert f16.severity == "ok"
    assert q8.severity == "error"
    assert q8.what.startswith("llama.cpp: one token from Q8_0 weights: crashed (SIGSEGV) (")
    assert q8.what.endswith(": models cannot be served")
    assert q8.fix
    assert any("string_at" in line for line in q8.data["log"])


def test_a_hang_is_ended_with_what_it_started(tmp_path: Path) -> None:
    (found,) = prove(of("sandbox"), python=python(tmp_path, where="sandbox", instead="sleep 60 & wait"), patience_s=0.5)
    assert found.severity == "error"
    assert "gave no answer in time" in found.what
    assert found.data["ms"] < 30_000


@pytest.mark.parametrize("memory_kb", [300_000, 600_000])
def test_too_little_memory_is_told_as_that(tmp_path: Path, memory_kb: int) -> None:
    limited = python(tmp_path, where="torch", instead=f"ulimit -v {memory_kb}")
    (found,) = prove(of("torch"), python=limited)
    assert found.severity == "error"
    assert "torch: one step: ran out of memory" in found.what


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("echo 'error: rustup could not choose a version of rustc to run' >&2; exit 1", "rustup could not choose"),
        ("echo nonsense", "prints 'nonsense'"),
        ("echo rustc 1.95.0", "the toolchain that it names is not there"),
    ],
)
def test_a_rustc_that_is_there_and_does_not_work_is_not_called_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, problem: str
) -> None:
    (tmp_path / "rustc").write_text(f"#!/bin/sh\n{body}\n")
    (tmp_path / "rustc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (found,) = prove(of("rustc"))
    assert found.severity == "warning"
    assert problem in found.what
    assert found.fix


def test_what_an_error_says_is_to_be_done_is_what_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_LLAMA_VARIANT", "no-such-variant")
    found = prove(of("llama.cpp"))
    assert {finding.severity for finding in found} == {"error"}
    assert all("no-such-variant" in finding.what and "unset it" in finding.fix for finding in found)
