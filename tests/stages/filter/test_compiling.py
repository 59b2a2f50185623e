"""rustc's answers about one file alone, by the real compiler in the real sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.domain.errors import ToolMissing, WorldError
from workbench.pipeline.environment import environment_of
from workbench.ports.sandbox import Job, Outcome, SandboxResult
from workbench.sandbox.bubblewrap import Bubblewrap
from workbench.stages.filter import compiling
from workbench.stages.filter.compiling import Editions, Question
from workbench.stages.filter.spec import SPEC

ANSWERS = {
    "pub fn f(x: u32) -> u32 { x + 1 }": "ok",
    "#![no_std]\nextern crate alloc;\npub fn f() -> alloc::vec::Vec<u8> { alloc::vec::Vec::new() }": "ok",
    "#![deny(warnings, missing_docs)]\npub fn f() { let x = 1; }": "ok",
    "#![cfg(windows)]\nuse nothing::here;": "ok",
    # Something from outside is missing; what follows from it is not held against the file.
    "use super::*;\npub fn f() -> Foo { bar() }": "unresolved",
    "use crate::x::Y;\npub fn f(y: Y) -> u32 { y.z() }": "unresolved",
    "pub fn f() { serde_json::to_string(&1); }": "unresolved",
    "#[derive(Serialize)]\npub struct A;\npub fn g(a: A) { a.ser() }": "unresolved",
    "mod other;\npub fn f() { other::x() }": "unresolved",
    "pub fn f() { crate::z() }": "unresolved",
    "#[tokio::main]\nasync fn main() {}": "unresolved",
    "#[macro_use]\nextern crate log;\nfn f() { info!(1) }": "unresolved",
    "#[serde(rename = \"a\")]\npub struct S;": "unresolved",
    "foo! { bar }\npub fn f() { made_by_foo() }": "unresolved",
    '#[cfg(feature = "a")]\nfn g() {}\npub fn f() { g() }': "unresolved",
    'pub const A: &str = env!("CARGO_PKG_VERSION");': "unresolved",
    'include!(concat!(env!("OUT_DIR"), "/x.rs"));': "unresolved",
    'pub const A: &str = include_str!("/etc/hostname");': "unresolved",
    "#![feature(never_type)]\npub fn f() {}": "unresolved",
    'compile_error!("choose a feature");': "unresolved",
    # All that the file needs is there, and it is wrong.
    "pub fn f() -> u32 { missing() }": "error",
    "pub fn f() { let x: HashMap<u8, u8> = HashMap::new(); }": "error",
    "impl Foo for Bar { fn g() {} }": "error",
    "pub fn f() -> u32 { \"x\" }": "error",
    "pub fn f() -> String { let v = String::new(); drop(v); v }": "error",
    "pub fn f() { let x = ; }": "error",
    "pub trait T { fn a(); }\nimpl T for u8 { fn a() {} fn b() {} }": "error",
    "pub fn f() { std::nothing() }": "error",
    "\0": "error",
    "pub const N: u32 = { loop {} };": "timeout",
}  # fmt: skip


@pytest.fixture(scope="module")
def sandbox() -> Bubblewrap:
    found = Bubblewrap()
    if missing := found.probe():
        pytest.skip(missing)
    return found


@pytest.fixture(scope="module")
def answers(sandbox: Bubblewrap, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    folder = tmp_path_factory.mktemp("asked")
    questions = []
    for number, text in enumerate(ANSWERS):
        (folder / f"{number}.rs").write_text(text + "\n")
        questions.append(Question(folder / f"{number}.rs", "2021"))
    try:
        return dict(zip(ANSWERS, compiling.check(sandbox, questions, workers=2), strict=True))
    except ToolMissing as error:
        pytest.skip(error.what)


@pytest.mark.parametrize("text", ANSWERS)
def test_rustc_is_asked_for_faults_that_no_other_file_could_mend(answers, text: str):
    status, detail = answers[text]
    assert status == ANSWERS[text], detail
    assert bool(detail) == (status != "ok")
    assert detail.isprintable()
    assert len(detail) <= 200


def test_the_edition_decides_what_is_syntax(answers, sandbox: Bubblewrap, tmp_path: Path):
    (tmp_path / "a.rs").write_text("pub fn f() { let async = 1; drop(async) }\n")
    asked = [Question(tmp_path / "a.rs", edition) for edition in ("2015", "2021")]
    assert [status for status, _ in compiling.check(sandbox, asked, workers=1)] == ["ok", "error"]


class Answering:
    """A sandbox's peer that answers as it is told."""

    def __init__(self, missing: str = "", **result: object) -> None:
        self.missing = missing
        given = {
            "outcome": Outcome.EXITED,
            "exit_code": 1,
            "stdout": b"",
            "stderr": b"",
            "truncated": False,
            "wall_s": 0.0,
        }
        self.result = SandboxResult(**{**given, **result})  # type: ignore[arg-type]

    def probe(self) -> str:
        return self.missing

    def run(self, job: Job) -> SandboxResult:
        return self.result

    def map(self, jobs, workers: int = 1):
        return [self.result for _ in jobs]


def test_without_a_sandbox_nothing_is_compiled():
    with pytest.raises(ToolMissing, match=r"bubblewrap is missing\n.*compile = \"off\""):
        list(compiling.check(Answering("bubblewrap is missing"), [], workers=1))


def test_a_compiler_that_compiles_nothing_is_the_worlds_fault_not_the_files():
    with pytest.raises(WorldError, match="does not compile an empty function: rustc failed with exit code 101"):
        list(compiling.check(Answering(exit_code=101), [], workers=1))


@pytest.mark.parametrize(
    ("result", "status"),
    [
        ({"outcome": Outcome.TIMEOUT, "exit_code": -1}, "timeout"),
        ({"outcome": Outcome.KILLED, "exit_code": 152}, "timeout"),
        ({"outcome": Outcome.KILLED, "exit_code": 137}, "timeout"),
        ({"outcome": Outcome.KILLED, "exit_code": 139}, "error"),
        ({"outcome": Outcome.MEMORY, "exit_code": -1}, "error"),
        ({"exit_code": 101, "stderr": b"thread 'rustc' panicked"}, "error"),
        (
            {"stderr": b'{"level":"error","message":"x","code":null,"spans":[{"text":[]}],"children":[]}\n{"cut'},
            "error",
        ),
        ({"stderr": b'[]\n5\nnull\n"x"\n{}'}, "error"),
        ({"exit_code": 0, "stderr": b"anything"}, "ok"),
    ],
)
def test_every_way_to_end_has_a_meaning(result: dict[str, object], status: str):
    assert compiling.verdict(Answering(**result).result)[0] == status


def test_the_edition_is_that_of_the_nearest_manifest(tmp_path: Path):
    for folder, text in {
        "": '[workspace.package]\nedition = "2024"\n',
        "crates/a": '[package]\nname = "a"\nedition.workspace = true\n',
        "crates/b": '[package]\nname = "b"\nedition = "2018"\n',
        "crates/c": '[package]\nname = "c"\n',
        "crates/d": "[package",
        "crates/e": '[package]\nedition = "3000"\n',
    }.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "Cargo.toml").write_text(text)
    editions = Editions(tmp_path, "2021")
    found = {name: editions.of(f"crates/{name}/src") for name in "abcdef"}
    assert found == {"a": "2024", "b": "2018", "c": "2015", "d": "2021", "e": "2021", "f": "2021"}


def test_the_compilers_version_is_part_of_the_key_only_where_it_is_asked():
    for compile, asked in (("off", False), ("record", True), ("require", True)):
        params = SPEC.resolve(1, {"compile": compile})
        assert ("rustc" in environment_of(SPEC, 1, params)) is asked
