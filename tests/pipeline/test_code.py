"""The digest of a stage's code: formatting is no reason, a constant is."""

from __future__ import annotations

import ast
import os
import shutil
from pathlib import Path

import pytest

import workbench
from workbench.app.wiring import STAGES, stage_specs
from workbench.domain.stage import StageSpec
from workbench.pipeline import code

PACKAGE = Path(workbench.__file__).parent

SOURCE = '''
"""A module."""
LIMIT = 3  # of something

def double(x: int) -> int:
    """Twice."""
    return x * 2
'''


def test_formatting_and_comments_do_not_count() -> None:
    other = '"""A module."""\nLIMIT=3\n\n\ndef double( x:int )->int:\n  """Twice."""\n  return (x\n   * 2)  # why\n'
    assert code.normalised(SOURCE.encode()) == code.normalised(other.encode())


@pytest.mark.parametrize(
    ("old", "new"), [("LIMIT = 3", "LIMIT = 4"), ("* 2", "+ x"), ("double", "twice"), ("x: int", "x"), ("Twice", "2 x")]
)
def test_what_could_change_the_output_counts(old: str, new: str) -> None:
    assert code.normalised(SOURCE.encode()) != code.normalised(SOURCE.replace(old, new).encode())


def test_a_string_that_is_no_docstring_counts() -> None:
    assert code.normalised(b"def f():\n    x = 1\n    'a'\n") != code.normalised(b"def f():\n    x = 1\n")


def test_what_does_not_parse_counts_by_its_bytes() -> None:
    assert code.normalised(b"def (") != code.normalised(b"def  (")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's sources, to edit."""
    root = tmp_path / "workbench"
    shutil.copytree(PACKAGE, root, ignore=lambda _, names: [name for name in names if name == "__pycache__"])
    return root


def _digest(stage: str, root: Path, adapters: tuple[str, ...] = ()) -> str:
    code._file.cache_clear()
    return code._package_digest(f"workbench.stages.{stage}", adapters, root, code.ParsedFiles())


def test_the_digest_follows_the_files_wherever_they_lie(copy: Path) -> None:
    for stage in STAGES:
        assert _digest(stage, copy) == _digest(stage, PACKAGE)


def test_a_reformatted_tree_gives_the_same_digests(copy: Path) -> None:
    before = {stage: _digest(stage, copy) for stage in STAGES}
    for path in copy.rglob("*.py"):
        path.write_text(ast.unparse(ast.parse(path.read_bytes())) + "\n# the end\n")
    assert {stage: _digest(stage, copy) for stage in STAGES} == before


def test_a_change_counts_for_the_stages_that_reach_it_and_no_others(copy: Path) -> None:
    before = {stage: _digest(stage, copy) for stage in STAGES}
    for path in sorted((copy / "tokens").glob("*.py")):
        path.write_text(path.read_text() + "\nADDED = 1\n")
    changed = {stage for stage in STAGES if _digest(stage, copy) != before[stage]}
    assert {"tokenizer", "shard"} <= changed
    assert not {"crawl", "filter"} & changed


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        ("crawl", "stages/crawl/recorded.py"),
        ("crawl", "fetch/tar_reader.py"),  # through a port, by an adapter that the stage names
        ("crawl", "domain/tree_rules.py"),  # by that adapter
        ("filter", "corpus/jsonl.py"),
        ("filter", "stages/filter/minhash.py"),  # imported inside a function
        ("dataset", "domain/canonical.py"),
        ("tokenizer", "domain/tokens.py"),  # by tokens.spm
        ("shard", "tokens/fim.py"),
        ("shard", "config/params.py"),
    ],
)
def test_a_module_that_is_reached_by_others_counts_wherever_it_is_imported(copy: Path, stage: str, path: str) -> None:
    spec = next(spec for spec in stage_specs() if spec.name == stage)
    before = _digest(stage, copy, spec.adapters)
    (copy / path).write_text((copy / path).read_text() + "\n# a word\n")
    assert _digest(stage, copy, spec.adapters) == before
    (copy / path).write_text((copy / path).read_text() + "\nADDED = 1\n")
    assert _digest(stage, copy, spec.adapters) != before


@pytest.mark.parametrize("path", ["ports/work.py", "domain/errors.py", "app/wiring.py", "fetch/__init__.py"])
def test_the_frame_around_a_stage_does_not_count(copy: Path, path: str) -> None:
    before = _digest("crawl", copy)
    (copy / path).write_text((copy / path).read_text() + "\nADDED = 1\n")
    assert _digest("crawl", copy) == before


def test_an_adapter_counts_where_the_stage_says_so(copy: Path) -> None:
    before = _digest("crawl", copy, ("fetch",))
    (copy / "fetch/__init__.py").write_text("ADDED = 1\n")
    assert _digest("crawl", copy, ("fetch",)) != before


def test_a_command_counts_by_the_files_of_the_commit(toy) -> None:
    def digest() -> str:
        spec: StageSpec = toy.definition.stage("words").spec
        return code.code_digest(spec, toy.repository.objects, toy.commit)

    first = digest()
    toy.replace("tools/words.py", "import json, sys", "import json\nimport sys\n# reformatted")
    changed = digest()
    assert changed != first  # two imports are two statements
    toy.replace("tools/words.py", "# reformatted", "# again")
    assert digest() == changed
    toy.edit({"README.md": "no code of a stage"})
    assert digest() == changed
    toy.replace("tools/steps.py", '"metrics": {}', '"metrics": {"x": 1}')
    assert digest() != changed


def test_the_index_of_parsed_files_holds_only_while_the_file_is_the_same(tmp_path: Path) -> None:
    source, index = tmp_path / "m.py", tmp_path / "index" / "code.json"
    source.write_text("A = 1\n")
    first = code.ParsedFiles(index)
    one = first.of(source)
    first.save()
    again = code.ParsedFiles(index)
    assert again.of(source) == one
    stat = source.stat()
    source.write_text("A = 2\n")
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert code.ParsedFiles(index).of(source) != one


DAMAGE = ["", "{", "[]", '{"format": "0", "files": {}}', '{"format": "FORMAT"}', "[" * 100_000, "\0"]
ENTRIES = ["5", "null", "[]", "[1, 2, 3]", '[[], "x", [5]]', '["", "", ""]', '{"0": 1}']


@pytest.mark.parametrize(
    "damage", [*DAMAGE, *(f'{{"format": "FORMAT", "files": {{"PATH": {each}}}}}' for each in ENTRIES)]
)
def test_a_damaged_index_costs_time_and_nothing_else(tmp_path: Path, damage: str) -> None:
    source, index = tmp_path / "m.py", tmp_path / "code.json"
    source.write_text("A = 1\n")
    index.write_text(damage.replace("FORMAT", code._INDEX_FORMAT).replace("PATH", str(source)))
    assert code.ParsedFiles(index).of(source) == code.ParsedFiles().of(source)
