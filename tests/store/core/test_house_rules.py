"""What was measured to lose data is not done anywhere: rules about the source itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import workbench

ROOT = Path(workbench.__file__).parent
SOURCES = sorted(path for path in ROOT.rglob("*.py") if "template" not in path.parts)


def test_libgit2_reads_and_adds_objects_and_touches_no_ref() -> None:
    """Its deletion of a ref lost 3 % of fresh ones while refs were packed, and it runs no hooks."""
    used = {
        node.attr
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pygit2"
    }
    assert used == {"Odb", "OdbBackendLoose", "Oid", "GitError", "option"}


def test_nothing_is_pruned_at_once_and_no_ref_is_forced() -> None:
    """`gc --prune=now` beside eight writers lost 71 acknowledged commits."""
    at_once = re.compile(r"(?:prune|expire|expiration)=now")
    assert [path.name for path in SOURCES if at_once.search(path.read_text())] == []
    forced = re.compile(r"[\"'](?:--force|-f|\+refs)[\"'/]")
    moves_refs = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in ("store", "hub")]
    assert [path.name for path in moves_refs if forced.search(path.read_text())] == []


def test_no_process_forks_that_may_have_used_libgit2() -> None:
    """Forked children share its random state: in the end none of them can make a temporary file."""
    rule = re.compile(r"os\.fork|[\"']fork(?:server)?[\"']")
    assert [path.name for path in SOURCES if rule.search(path.read_text())] == []


def test_locks_between_processes_are_taken_in_one_place() -> None:
    assert [str(path.relative_to(ROOT)) for path in SOURCES if "flock(" in path.read_text()] == ["system/locks.py"]
