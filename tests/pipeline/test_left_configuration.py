"""What programs would read as configuration is bytes when a stage has left it: no program of the host obeys it."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.pipeline.plan import Mode
from workbench.pipeline.rebuild import Rebuild
from workbench.pipeline.verify import verify
from workbench.sandbox.bubblewrap import Bubblewrap

WHO = "Test <test@example.com>"
# In output, scratch and the folder of both: what git, Python, pytest, cargo, rustup, make and direnv look for.
PLANT = """
import json, os, sys, stat
sys.path.insert(0, "tools")
from pathlib import Path
from steps import begin, end
step, output = begin()
command = step["params"]["command"]
code = f"import os; os.system({command!r})\\n"
shell = f"#!/bin/sh\\n{command}\\n"
files = {
    "sitecustomize.py": code, "usercustomize.py": code, "conftest.py": code, "json.py": code, "setup.py": code,
    "workbench/__init__.py": code, "agents/__init__.py": code, "x.pth": code,
    "pytest.ini": "[pytest]\\naddopts = -p json",
    ".gitattributes": "* filter=evil diff=evil merge=evil\\n",
    ".cargo/config.toml": f'[build]\\nrustc-wrapper = "{output}/wrapper"\\n', "wrapper": shell,
    "rust-toolchain.toml": f'[toolchain]\\npath = "{output}"\\n', "Makefile": f"all:\\n\\t{command}\\n",
    ".envrc": shell, "pyproject.toml": "[tool.pytest.ini_options]\\naddopts = '-p json'",
}
bare = {
    "HEAD": "ref: refs/heads/main\\n", "hooks/reference-transaction": shell, "hooks/post-checkout": shell,
    "hooks/pre-commit": shell, "objects/x": "", "refs/x": "",
    "config": f"[core]\\n\\trepositoryformatversion = 0\\n\\tfsmonitor = {command}\\n\\thooksPath = hooks\\n"
              f"\\talternateRefsCommand = {command}\\n[filter \\"evil\\"]\\n\\tclean = {command}\\n",
}
def plant(folder, found):
    for name, text in found.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
for folder in (output.parent, Path(step["scratch"]), Path(step["scratch"], "checkpoint")):
    plant(folder, files)
    if folder.name != "checkpoint":
        plant(Path(folder, ".git"), bare)
which = step["params"]["with"]
plant(output, {name: text for name, text in files.items() if name != ".gitattributes" or which == name})
if which == ".git":
    plant(Path(output, ".git"), bare)
print(json.dumps({"event": "checkpoint", "folder": str(Path(step["scratch"], "checkpoint"))}), flush=True)
sys.stdin.readline()
end(output)
"""


def _plant(toy, canary: Path, which: str) -> None:
    toy.edit({"tools/words.py": PLANT})
    toy.replace("ci/pipelines/toy.toml", 'text = "b a c a"', f'command = "touch {canary}"\nwith = "{which}"')
    toy.replace("ci/pipelines/toy.toml", 'makes = "raw"', 'makes = "raw"\ncheckpoints = true')
    toy.replace("tools/count.py", '(raw / "words.txt").read_text().split()', "[p.name for p in raw.rglob('*')]")


def test_nothing_that_a_stage_left_is_obeyed_by_those_who_take_it(toy, new_repository, tmp_path, gates) -> None:
    canary = gates / "canary"
    _plant(toy, canary, "")
    record = toy.run()
    assert record.error == ""
    artifact = toy.artifact("dataset/toy/v1.0.0")
    assert [finding for finding in verify(toy.repository, artifact) if finding.severity == "error"] == []
    rebuild = Rebuild(
        toy.repository, new_repository("fresh.git"), (), tmp_path / "rebuild", toy.clock, 2, WHO, sandbox=Bubblewrap
    )
    assert all(row.equal for row in rebuild.of(artifact))
    assert toy.run(Mode(force=True)).error == ""
    assert toy.fsck() == ""
    assert not canary.exists()


@pytest.mark.parametrize("which", [".git", ".gitattributes"])
def test_what_git_would_obey_in_an_artifact_is_refused_and_not_looked_into(toy, gates: Path, which: str) -> None:
    canary = gates / "canary"
    _plant(toy, canary, which)
    record = toy.run()
    assert record.state == "failed"
    assert which in record.error
    assert not canary.exists()
