"""What people see: words of others neither break a table nor steer a terminal."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from workbench.cli import output
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub


def test_a_row_is_a_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("who", "why"), [("Ada", "one\ntwo"), ("B\x1b[2Job", "three\x9b5m")])
    assert capsys.readouterr().out.splitlines() == [
        "who         why",
        "Ada         one two",
        r"B\x1b[2Job  three\x9b5m",
    ]


def test_escape_sequences_of_others_are_shown_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    output.fields({"message": "first\n\x1b]0;title\x07second"})
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x07")
    assert out.splitlines() == ["message  first", r"\x1b]0;title\x07second"]


def test_words_that_are_no_text_are_recorded_as_question_marks(cli: Any, tmp_path: Path) -> None:
    """A shell passes any bytes; the ledger holds text."""
    (tmp_path / "a.jsonl").write_text('{"text": "fn main() {}"}\n')
    with GitRepository(init_hub(tmp_path / "hub.git")):
        pass
    odd = tmp_path / "caf\udce9.jsonl"
    (tmp_path / "a.jsonl").rename(odd)
    done = cli(
        tmp_path / "hub.git", "import", str(odd), "--name", "x", "--license", "MIT", "--origin", "\udcff", "--trust"
    )
    assert done.returncode == 0, done.stderr
    shown = cli(tmp_path / "hub.git", "show", "dataset/x").stdout
    assert '"file": "caf?.jsonl"' in shown
    assert '"origin": "?"' in shown
    done = cli(tmp_path / "hub.git", "bundle", str(tmp_path / "b\udce9"), "dataset/x", "--json")
    assert done.returncode == 0, done.stderr
    with GitRepository(init_hub(tmp_path / "other.git")):
        pass
    done = cli(tmp_path / "other.git", "unbundle", str(tmp_path / "b\udce9"))
    assert done.returncode == 0, done.stderr
    fsck = subprocess.run(["git", "--git-dir", str(tmp_path / "other.git"), "fsck", "--strict"], capture_output=True)
    assert fsck.returncode == 0
