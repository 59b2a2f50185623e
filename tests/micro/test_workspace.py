"""What must hold of a workspace at every commit. Runs in the sandbox, with the standard library, pytest and the SDK."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "agents").rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    """Every module that a file names."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "workbench":
            found |= {f"workbench.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_an_agent_imports_the_sdk_and_nothing_else_of_workbench(path: Path) -> None:
    names = {name for name in imported(ast.parse(path.read_text())) if name.split(".")[0] == "workbench"}
    assert {name for name in names if not f"{name}.".startswith("workbench.sdk.")} == set()


TOLD = """
import inspect, json
from agents import runner
print(json.dumps({name: inspect.getdoc(getattr(runner, name)) for name in ("complete", "fill_in_middle", "search")}))
"""


def test_the_tools_can_be_imported_and_tell_what_they_do() -> None:
    """In a process of its own: a Runner imports them in another way, and both must not meet."""
    pytest.importorskip("pydantic_core", reason="the sandbox has another Python than the workbench")
    done = subprocess.run([sys.executable, "-c", TOLD], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, said in json.loads(done.stdout).items():
        assert said, f"{name} has no docstring: an editor shows it"


@pytest.mark.parametrize("name", ["active", "staging"])
def test_a_state_is_of_a_known_format(name: str) -> None:
    state = json.loads((ROOT / "state" / f"{name}.state.json").read_text())
    assert state["format"] == 1
    assert state["sampling"]["max_tokens"] >= 1
