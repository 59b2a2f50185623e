"""The smallest step of the dial is for a first try: it ends, with everything that a larger one makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

KINDS = ["dataset", "filtered", "metrics", "model", "raw", "release", "shards", "tokenizer"]


@pytest.mark.long
def test_dial_0_runs_all_nine_stages_to_the_end_and_its_release_answers(new_workspace: Callable[[str], Any]) -> None:
    workspace = new_workspace("dial")
    path = workspace.clone / "ci" / "pipelines" / "rust.toml"
    text = path.read_text().split("[stage.dataset]")[0]  # what is held out is the dial's to say, too
    path.write_text(text.replace("dial = 1", "dial = 0"))
    workspace.git("commit", "--quiet", "--all", "--message", "A first try")
    workspace.git("push", "--quiet", "-o", "ci.skip", "hub", "main")
    done = workspace.run("run", "--workers", "2")
    assert "8 made, 0 reused" in done.stdout
    assert sorted(name.split("/")[0] for name in workspace.trees()) == KINDS
    shown = workspace.json("show", "release/rust", "--files")
    names = [file["path"] for file in shown["file_list"] if file["path"].endswith(".gguf")]
    assert sorted(names) == ["rust-F16.gguf", "rust-Q4_K_M.gguf", "rust-Q8_0.gguf"]
    answer = workspace.json("complete", "release/rust", "--prompt", "pub fn ", "--suffix", "}", "--max-tokens", "8")
    assert len(answer["tokens"]) <= 8
