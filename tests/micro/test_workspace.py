"""What must hold of a workspace at every commit. Runs in the sandbox, with the standard library and pytest alone."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "agents").rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" if node.module == "workbench" else node.module or ""
                      for alias in node.names}  # fmt: skip
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_an_agent_imports_the_sdk_and_nothing_else_of_workbench(path: Path) -> None:
    names = {name for name in imported(ast.parse(path.read_text())) if name.split(".")[0] == "workbench"}
    assert {name for name in names if not f"{name}.".startswith("workbench.sdk.")} == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_every_tool_tells_what_it_does(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and any("tool" in ast.dump(mark) for mark in node.decorator_list):
            assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring: an editor shows it"


@pytest.mark.parametrize("name", ["active", "staging"])
def test_a_state_is_of_a_known_format(name: str) -> None:
    state = json.loads((ROOT / "state" / f"{name}.state.json").read_text())
    assert state["format"] == 1
    assert state["sampling"]["max_tokens"] >= 1
