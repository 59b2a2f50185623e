"""Nothing about who runs it, where, when and with how many workers is in a data stage's result: the same tree ids."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from workbench.app.wiring import stage_specs
from workbench.domain.action import Change
from workbench.pipeline import environment
from workbench.pipeline.environment import environment_of

STAGES = ("crawl", "filter", "dataset", "tokenizer", "shard")
WALK = """
import json, sys
from pathlib import Path
from workbench.app import wiring
from workbench.domain.ids import ObjectId
from workbench.pipeline.definition import load
from workbench.pipeline.plan import Mode, Planner
from workbench.pipeline.walk import Settings, run_pipeline
repository = wiring.open_repository(Path(sys.argv[1]))
commit = ObjectId(sys.argv[2])
planner = Planner(repository, load(repository.objects, commit, "toy", wiring.stage_specs()), commit)
settings = Settings("Test <test@example.com>", int(sys.argv[3]))
record = run_pipeline(planner, Mode(), settings, clock=wiring.clock(), trigger="test")
trees = {s.stage: repository.artifacts.get(repository.artifacts.list(spec.makes)[-1]).tree
         for s, spec in zip(record.steps, wiring.stage_specs()) if s.artifact}
print(json.dumps({"error": record.error, "trees": trees, "keys": {s.stage: s.action_key for s in record.steps}}))
"""
WORDS = ["value", "index", "buffer", "state", "token", "next_row", "Vec", "Option", "self", "étage", "日本"]


def rust(number: int) -> str:
    draw = random.Random(number)
    lets = "".join(
        f"    let {draw.choice(WORDS)}_{n} = {draw.choice(WORDS)}({draw.randrange(999)});\n" for n in range(30)
    )
    return f"/// The {draw.choice(WORDS)}.\npub fn {draw.choice(WORDS)}_{number}() {{\n{lets}}}\n"


def write_sources(root: Path) -> str:
    """A folder, a repository and a source distribution; the lines of the source list that name them."""
    folder, work = root / "folder", root / "repository"
    for number in range(20):
        for place, text in ((folder, rust(number)), (work, rust(number + 100))):
            path = place / "src" / f"naïve {number}.rs"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.replace("\n", "  \r\n" if number % 3 else "\n").encode())
    (folder / "src" / "İI.rs").write_text(rust(1) + "fn like_one() {}\n")  # a near copy
    for place in (folder, work):
        (place / "Cargo.toml").write_text('[package]\nname = "x"\nversion = "1.0.0"\nlicense = "MIT"\n')
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@b.c", "-C", str(work)]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        files = {"PKG-INFO": "Name: demo\nLicense-Expression: MIT\n", **{f"s{n}.rs": rust(n + 200) for n in range(9)}}
        for path, text in files.items():
            info = tarfile.TarInfo(f"demo-1.0/{path}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    (root / "archives").mkdir()
    (root / "archives" / "demo-1.0.tar.gz").write_bytes(out.getvalue())
    sha256 = hashlib.sha256(out.getvalue()).hexdigest()
    return f"""
  {{ kind = "path", name = "folder", version = "1", location = "{folder}" }},
  {{ kind = "git", name = "repo", version = "{commit}", location = "{work}" }},
  {{ kind = "sdist", name = "demo", version = "1.0", sha256 = "{sha256}" }},
"""


def two_worlds(root: Path) -> dict[str, tuple[dict[str, str], int, str, int]]:
    """By name: variables, the mask of new files, the folder it is run in, workers."""
    base = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LC_", "LANG", "TZ", "GIT_", "PIP_"))}
    base |= {"PYTHONPATH": os.pathsep.join(sys.path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(root / "archives")}
    for name in ("home", "tmp", "cache-1", "cache-2", "elsewhere"):
        (root / name).mkdir()
    one = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "UTC", "WORKBENCH_CACHE_DIR": str(root / "cache-1")}
    two = {
        "PYTHONHASHSEED": "4711",
        "LC_ALL": "C",
        "LANG": "tr_TR.UTF-8",
        "TZ": "Pacific/Kiritimati",
        "HOME": str(root / "home"),
        "XDG_CACHE_HOME": str(root / "home"),
        "TMPDIR": str(root / "tmp"),
        "WORKBENCH_CACHE_DIR": str(root / "cache-2"),
        "OMP_NUM_THREADS": "3",
        "COLUMNS": "40",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.autocrlf",
        "GIT_CONFIG_VALUE_0": "true",
        "SOMETHING_ELSE": "x",
    }
    return {"one": (base | one, 0o022, "/", 1), "two": (base | two, 0o077, str(root / "elsewhere"), 2)}


def test_the_data_stages_make_the_same_trees_in_any_environment(toy, new_repository, tmp_path: Path) -> None:
    sources = write_sources(tmp_path)
    use = ", ".join(f'"{stage}"' for stage in STAGES)
    pipeline = f"""format = 1
use = [{use}]
[stage.crawl]
sources = [{sources}]
[stage.dataset]
validation = 0.1
test = 0.1
[stage.tokenizer]
vocab_size = 400
sample_bytes = 20000
"""
    found = {}
    for name, (variables, umask, folder, workers) in two_worlds(tmp_path).items():
        world = type(toy)(new_repository(f"{name}.git"), "0" * 40)
        world.edit({"ci/pipelines/toy.toml": pipeline})
        command = [sys.executable, "-c", WALK, str(world.repository.path), world.commit, str(workers)]
        done = subprocess.run(command, env=variables, cwd=folder, umask=umask, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(done.stdout)
        assert found[name]["error"] == ""
    assert list(found["one"]["trees"]) == list(STAGES)
    assert found["one"]["trees"] == found["two"]["trees"]
    assert found["one"]["keys"] == found["two"]["keys"]


def test_an_environment_variable_is_no_reason_to_run_again(toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.run()
    specs = stage_specs()
    before = [environment_of(spec, 2, spec.resolve(1, {}) if spec.name == "filter" else {}) for spec in specs]
    for name in ("LC_ALL", "TZ", "PYTHONHASHSEED", "TMPDIR", "COLUMNS", "OMP_NUM_THREADS", "ANYTHING"):
        monkeypatch.setenv(name, "7")
    assert [environment_of(spec, 2, spec.resolve(1, {}) if spec.name == "filter" else {}) for spec in specs] == before
    monkeypatch.setenv("HOME", "/nowhere")  # where a tool may keep which of its versions is the one
    for spec, found in zip(specs, before, strict=True):
        if not spec.tools:
            assert environment_of(spec, 2, spec.resolve(1, {}) if spec.name == "filter" else {}) == found
    assert toy.planner.why("words").reason.changes == (Change.KNOWN,)
    assert toy.planner.why("count").reason.changes == (Change.KNOWN,)


def install(folder: Path, version: str) -> None:
    about = folder / "somelib.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: somelib\nVersion: {version}\n")
    environment._library.cache_clear()  # as in a new process


def test_another_version_of_a_declared_library_is_a_reason_and_of_another_is_none(
    toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "1.0")
    toy.replace("ci/pipelines/toy.toml", 'name = "words"', 'name = "words"\nlibraries = ["somelib"]')
    toy.run()
    assert toy.planner.why("words").reason.changes == (Change.KNOWN,)
    install(tmp_path, "2.0")
    step = toy.planner.why("words")
    assert step.reason.changes == (Change.ENVIRONMENT,)
    assert str(step.reason) == "environment somelib changed: 1.0 -> 2.0"
    assert toy.planner.why("count").reason.changes == (Change.UPSTREAM,)
    record = toy.run()
    # The same words; but its manifest tells the version, so it is another artifact.
    assert toy.states(record)["words"] == "succeeded"
    assert record.step("words").artifact == "raw/toy/v1.0.1"


def test_another_version_of_a_declared_tool_is_a_reason(toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "sometool"

    def write(version: str) -> None:
        tool.write_text(f"#!/bin/sh\necho sometool {version}\n")
        tool.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    write("1.0")
    toy.replace("ci/pipelines/toy.toml", 'name = "words"', 'name = "words"\ntools = ["sometool"]')
    toy.run()
    assert toy.planner.why("words").reason.changes == (Change.KNOWN,)
    write("2.0.0")
    assert str(toy.planner.why("words").reason) == "environment sometool changed: sometool 1.0 -> sometool 2.0.0"


@pytest.mark.parametrize("stage", STAGES)
def test_a_data_stage_names_every_library_that_it_imports(stage: str) -> None:
    """What is imported from elsewhere by the stage's own code or the layers that it reaches, and shapes bytes, is
    declared; what only carries or checks values (pydantic) is not."""
    import ast

    import workbench

    distributions = {
        "tree_sitter": "tree-sitter",
        "tree_sitter_rust": "tree-sitter-rust",
        "askalono": "pyaskalono",
        "license_expression": "license-expression",
    }
    root = Path(workbench.__file__).parent
    spec = next(spec for spec in stage_specs() if spec.name == stage)
    rooms = {"shard": ["tokens"], "tokenizer": ["tokens"], "dataset": ["corpus"], "filter": ["corpus"]}.get(stage, [])
    named = set()
    for folder in (root / "stages" / stage, *(root / room for room in rooms)):
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                named |= {module.partition(".")[0] for module in modules}
    outside = named - set(sys.stdlib_module_names) - {"workbench", "pydantic", "numpy"}
    assert {distributions.get(name, name) for name in outside} <= set(spec.libraries)
