"""Agent code is imported from Git objects; versions do not meet."""

from __future__ import annotations

import sys

import pytest

from workbench.domain.errors import UserError
from workbench.runner import importer
from workbench.store.git.repository import GitRepository


def test_two_versions_of_a_module_live_side_by_side(repository: GitRepository, commit) -> None:  # type: ignore[no-untyped-def]
    one = commit({"agents/words.py": b"WORD = 'one'\n", "agents/deep/more.py": b"from agents.words import WORD\n"})
    two = commit({"agents/words.py": b"WORD = 'two'\n"})
    first, second = importer.load(repository.objects, one), importer.load(repository.objects, two)
    assert (first["deep.more"].WORD, second["deep.more"].WORD) == ("one", "two")
    assert first["words"].WORD == "one"
    assert "agents" not in sys.modules


def test_relative_imports_and_packages_work(repository: GitRepository, commit) -> None:  # type: ignore[no-untyped-def]
    made = commit({"agents/p/__init__.py": b"from .q import V\n", "agents/p/q.py": b"import agents.p\nV = 7\n"})
    assert importer.load(repository.objects, made)["p.q"].V == 7


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (b"import workbench.store\n", "workbench.sdk only"),
        (b"from workbench import app\n", "workbench.sdk only"),
        (b"def (\n", "bad.py, line 1"),
        (b"x = 1\nraise RuntimeError('no')\n", "bad.py, line 2: RuntimeError: no"),
        (b"import no_such_module\n", "no_such_module"),
    ],
)
def test_code_that_cannot_be_loaded_is_named_with_its_line(  # type: ignore[no-untyped-def]
    repository: GitRepository, commit, source: bytes, named: str
) -> None:
    made = commit({"agents/bad.py": source})
    with pytest.raises(UserError, match=named):
        importer.load(repository.objects, made)
    assert not [name for name in sys.modules if name.startswith("agents@") and name.endswith(".bad")]


def test_a_traceback_shows_the_line_of_the_tree(repository: GitRepository, commit) -> None:  # type: ignore[no-untyped-def]
    import traceback

    made = commit({"agents/late.py": b"def f():\n    return 1 / 0\n"})
    module = importer.load(repository.objects, made)["late"]
    with pytest.raises(ZeroDivisionError) as caught:
        module.f()
    assert "return 1 / 0" in "".join(traceback.format_tb(caught.value.__traceback__))
