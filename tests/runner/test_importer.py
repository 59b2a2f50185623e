"""Agent code is imported from Git objects; versions do not meet."""

from __future__ import annotations

import sys

import pytest

from workbench.domain.errors import UserError
from workbench.runner import importer, source
from workbench.runner.contract import find_tools
from workbench.store.git.repository import GitRepository


def test_two_versions_of_a_module_live_side_by_side(repository: GitRepository, commit) -> None:  # type: ignore[no-untyped-def]
    one = commit({"agents/words.py": b"WORD = 'one'\n", "agents/deep/more.py": b"from agents.words import WORD\n"})
    two = commit({"agents/words.py": b"WORD = 'two'\n"})
    first, second = importer.load(source.at(repository.objects, one)), importer.load(source.at(repository.objects, two))
    assert (first["deep.more"].WORD, second["deep.more"].WORD) == ("one", "two")
    assert first["words"].WORD == "one"
    assert "agents" not in sys.modules


def test_relative_imports_and_packages_work(repository: GitRepository, commit) -> None:  # type: ignore[no-untyped-def]
    made = commit({"agents/p/__init__.py": b"from .q import V\n", "agents/p/q.py": b"import agents.p\nV = 7\n"})
    assert importer.load(source.at(repository.objects, made))["p.q"].V == 7


@pytest.mark.parametrize(
    ("code", "named"),
    [
        (b"import workbench.store\n", "workbench.sdk only"),
        (b"from workbench import app\n", "workbench.sdk only"),
        (b"def (\n", "bad.py, line 1"),
        (b"x = 1\nraise RuntimeError('no')\n", "bad.py, line 2: RuntimeError: no"),
        (b"import no_such_module\n", "no_such_module"),
    ],
)
def test_code_that_cannot_be_loaded_is_named_with_its_line(  # type: ignore[no-untyped-def]
    repository: GitRepository, commit, code: bytes, named: str
) -> None:
    made = commit({"agents/bad.py": code})
    with pytest.raises(UserError, match=named):
        importer.load(source.at(repository.objects, made))
    assert not [name for name in sys.modules if name.startswith("agents@") and name.endswith(".bad")]


def test_a_traceback_shows_the_line_of_the_tree(repository: GitRepository, commit) -> None:  # type: ignore[no-untyped-def]
    import traceback

    made = commit({"agents/late.py": b"def f():\n    return 1 / 0\n"})
    module = importer.load(source.at(repository.objects, made))["late"]
    with pytest.raises(ZeroDivisionError) as caught:
        module.f()
    assert "return 1 / 0" in "".join(traceback.format_tb(caught.value.__traceback__))


def test_a_tool_in_the_init_of_a_package_is_offered_like_any_other(repository: GitRepository, commit) -> None:  # type: ignore[no-untyped-def]
    tool = b"from workbench.sdk import tool\n\n@tool()\ndef greet() -> str:\n    'Greet.'\n    return 'hi'\n"
    made = commit(
        {"agents/p/__init__.py": tool, "agents/p/q/__init__.py": b"V = 7\n", "agents/my__init__.py": b"V = 8\n"}
    )
    modules = importer.load(source.at(repository.objects, made))
    assert (modules["p.q"].V, modules["my__init__"].V) == (7, 8)
    assert "greet" in find_tools(modules.values())
    assert "__init__" not in modules


def test_package_data_is_read_from_the_objects(repository: GitRepository, commit) -> None:  # type: ignore[no-untyped-def]
    code = (
        b"from importlib.resources import files\n"
        b"HERE = files(__package__)\n"
        b"TEXT = HERE.joinpath('data/prompt.txt').read_text()\n"
        b"NAMES = sorted(p.name for p in HERE.joinpath('data').iterdir())\n"
    )
    data = {"agents/p/__init__.py": b"", "agents/p/code.py": code, "agents/p/data/prompt.txt": "é\n".encode()}
    top = (
        code.splitlines(keepends=True)[0] + b"TEXT = files(__package__).joinpath('p', 'data/prompt.txt').read_text()\n"
    )
    made = commit({**data, "agents/p/data/b.bin": b"\0", "agents/top.py": top})
    found = importer.load(source.at(repository.objects, made))
    assert (found["p.code"].TEXT, found["p.code"].NAMES) == ("é\n", ["b.bin", "prompt.txt"])
    assert found["top"].TEXT == "é\n"
    here = found["p.code"].HERE
    assert here.joinpath("data").joinpath("b.bin").read_bytes() == b"\0"
    assert here.joinpath("data", "prompt.txt").open().read() == "é\n"
    assert not here.joinpath("none").is_file()
    for wrong, error in (("none", FileNotFoundError), ("data", IsADirectoryError), ("../runner.py", FileNotFoundError)):
        with pytest.raises(error):
            here.joinpath(wrong).read_bytes()


def test_data_of_two_versions_does_not_meet(repository: GitRepository, commit) -> None:  # type: ignore[no-untyped-def]
    code = b"from importlib.resources import files\nTEXT = files(__package__).joinpath('w.txt').read_text()\n"
    one = commit({"agents/words.py": code, "agents/w.txt": b"one"})
    two = commit({"agents/w.txt": b"two"})
    texts = [importer.load(source.at(repository.objects, made))["words"].TEXT for made in (one, two, one)]
    assert texts == ["one", "two", "one"]


@pytest.mark.parametrize(
    "code", [b"\xef\xbb\xbfV = 'e'\n", b"# -*- coding: latin-1 -*-\nV = '\xe9'\n", b"V = 'e'\r\nW = 1\r\n"]
)
def test_source_is_decoded_as_python_decodes_it(repository: GitRepository, commit, code: bytes) -> None:  # type: ignore[no-untyped-def]
    assert importer.load(source.at(repository.objects, commit({"agents/v.py": code})))["v"].V in ("e", "é")


def test_a_module_that_exits_is_refused_and_does_not_take_us_along(repository: GitRepository, commit) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=r"bad\.py, line 2: SystemExit: 0"):
        importer.load(source.at(repository.objects, commit({"agents/bad.py": b"import sys\nsys.exit(0)\n"})))


def test_what_a_module_prints_on_import_stays_off_standard_output(  # type: ignore[no-untyped-def]
    repository: GitRepository, commit, capsys: pytest.CaptureFixture[str]
) -> None:
    importer.load(source.at(repository.objects, commit({"agents/loud.py": b"print('loaded')\n"})))
    heard = capsys.readouterr()
    assert (heard.out, heard.err) == ("", "loaded\n")


def test_a_broken_version_does_not_disturb_the_one_beside_it(repository: GitRepository, commit) -> None:  # type: ignore[no-untyped-def]
    good = commit(
        {
            "agents/late.py": b"def f():\n    from agents import other\n    return other.V\n",
            "agents/other.py": b"V = 1\n",
        }
    )
    module = importer.load(source.at(repository.objects, good))["late"]
    with pytest.raises(UserError, match="line 1"):
        importer.load(source.at(repository.objects, commit({"agents/other.py": b"V = (\n"})))
    assert module.f() == 1
