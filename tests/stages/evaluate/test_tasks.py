"""Which spans are masked, and which parts of a file may stand alone."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.stages.evaluate.snippets import LONGEST_SNIPPET, PER_DOCUMENT, snippets
from workbench.stages.evaluate.tasks import Source, choose, in_hash_order, rank, spans

SOURCE = """\
const LIMIT: u32 = 7;

// a comment: let x = 1;
fn one(value: u32) -> u32 {
    let größe = value + 1; // ü
    check(größe);
    if größe > LIMIT {
        größe - 1
    } else {
        0
    }
}
"""


def masked(text: str) -> list[str]:
    return [text[start:end] for start, end in spans(text)]


def anything_fits(prefix: str, middle: str, suffix: str) -> bool:
    return True


def task(text: str = SOURCE, **changes):
    options = {"kind": "line", "seed": 0, "longest_middle": 60, "context_characters": 1024, "fits": anything_fits}
    return choose(Source("d", text), **{**options, **changes})


def test_statements_tail_expressions_and_bodies_inside_functions_are_spans():
    found = masked(SOURCE)
    assert "let größe = value + 1;" in found
    assert "check(größe);" in found
    assert "größe - 1" in found
    assert not [span for span in found if "LIMIT: u32" in span or span.startswith("//")]


def test_a_task_is_its_source_cut_in_three():
    found = task()
    assert found.before + found.middle + found.after == SOURCE
    assert found.filled(found.middle) == SOURCE
    assert SOURCE[len(found.before) :].startswith(found.middle)


def test_a_span_is_chosen_by_content_and_seed_alone():
    assert task() == task()
    chosen = {task(seed=seed).middle for seed in range(20)}
    assert len(chosen) > 1
    sources = [Source(str(n), f"fn f{n}() {{ let a = {n}; }}") for n in range(10)]
    assert in_hash_order(sources, 3) == in_hash_order(reversed(sources), 3)
    assert rank("a", "b") != rank("ab", "")


def test_the_context_shrinks_until_the_prompt_fits():
    found = task(SOURCE * 20, fits=lambda prefix, middle, suffix: len(prefix) + len(suffix) < 200)
    assert len(found.prefix) + len(found.suffix) < 200
    assert found.before.endswith(found.prefix)
    assert found.after.startswith(found.suffix)


def test_without_a_span_or_a_fit_there_is_no_task():
    assert task("const X: u8 = 1;\n") is None
    assert task("") is None
    assert task("}}} not rust {{{ fn") is None
    assert task(fits=lambda *_: False) is None
    assert task("fn f() { let a = 1; }\n" * 20_000) is None  # too long to parse


@settings(max_examples=60)
@given(st.text(max_size=200))
def test_any_text_has_spans_that_lie_in_it(text: str):
    for start, end in spans(f"fn f() {{ let a = 1; {text} }}"):
        assert 0 <= start <= end <= len(text) + 22


def test_deeply_nested_source_does_not_exhaust_the_stack():
    text = "fn f() {" + "{" * 5000 + "}" * 5000 + "}"
    spans(text)
    assert parts(text) == []


def parts(text: str) -> list[str]:
    return [snippet.text for snippet in snippets(Source("d", text))]


def test_a_function_comes_with_what_it_names_in_its_file():
    (found,) = parts(SOURCE + "\nfn check(value: u32) { assert!(value < LIMIT); }\nstruct Unused;\n")[:1] or [""]
    everything = " ".join(parts(SOURCE + "\nfn check(value: u32) { assert!(value < LIMIT); }\nstruct Unused;\n"))
    assert "const LIMIT" in everything
    assert "fn check" in everything
    assert "Unused" not in everything
    assert found


def test_a_method_comes_in_its_impl_with_its_type_and_only_the_derives_of_std():
    text = (
        "#[derive(Debug, Serialize)]\npub struct Pair<T> { a: T }\n"
        "impl<T: Clone> Pair<T> {\n    pub fn first(&self) -> T {\n        self.a.clone()\n    }\n}\n"
    )
    (found,) = parts(text)
    assert "#[derive(Debug)]" in found
    assert "impl<T: Clone> Pair<T> {" in found
    assert "Serialize" not in found


def test_what_names_things_from_elsewhere_is_left_out():
    for body in (
        "fn f(x: crate::X) { drop(x); }",
        "fn f() { super::go(); }",
        "use serde::Value;\nfn f(v: Value) { drop(v); }",
        "fn f(v: Unknown) { drop(v); }",
        "use anyhow::bail;\nfn f() { bail!(1); }",
        "fn f() { tokio::spawn(1); }",
        "use other::helper;\nfn f() { helper(); }",
        "struct S { #[serde(rename)] a: u8 }\nfn f(s: S) { drop(s); }",
        "fn f() {}",
        "fn f();",
    ):
        assert parts(body) == [], body


def test_standard_imports_come_along():
    (found,) = parts("use std::collections::HashMap;\nuse serde::X;\nfn f(m: HashMap<u8, u8>) -> usize { m.len() }\n")
    assert found.startswith("use std::collections::HashMap;\n")
    assert "serde" not in found


def test_one_file_gives_a_few_short_snippets():
    found = parts("\n".join(f"fn f{n}() -> u32 {{ {n} + 1 }}" for n in range(50)))
    assert len(found) == PER_DOCUMENT
    assert parts("fn f() -> u32 { 1 + " + "1 + " * LONGEST_SNIPPET + "1 }") == []


def test_mutual_recursion_ends():
    both = "fn a(n: u32) -> u32 { if n == 0 { 0 } else { b(n - 1) } }\nfn b(n: u32) -> u32 { a(n) }\n"
    assert all("fn a" in text and "fn b" in text for text in parts(both))
