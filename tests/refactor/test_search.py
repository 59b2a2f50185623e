"""Structural search: outcomes are typed, and what cannot match is told from what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.refactor.search import MAX_SOURCE, search

SOURCE = "fn a() { let x = foo(1, 2); bar(x).unwrap(); }\nfn b() { baz().unwrap() }\n"


def test_every_place_is_found_with_its_variables() -> None:
    found = search([("a.rs", SOURCE)], "$X.unwrap()", language="rust")
    assert found.outcome == "matched"
    assert [(m.line, m.column, m.variables) for m in found.matches] == [
        (1, 29, {"X": "bar(x)"}),
        (2, 10, {"X": "baz()"}),
    ]


@pytest.mark.parametrize(
    ("language", "pattern", "text"),
    [
        ("rust", "foo($$$A)", SOURCE),
        ("rust", "fn $N() { $$$ }", SOURCE),
        ("rust", "let $A = $B;", SOURCE),
        ("python", "print($A)", "print(1)\n"),
        ("python", "return $A", "def f():\n    return 1\n"),
        ("javascript", "console.log($A)", "console.log(1)\n"),
        ("typescript", "const $A = $B", "const a = 1\n"),
        ("java", "System.exit($A);", "class A { void f() { System.exit(1); } }\n"),
    ],
)
def test_fragments_of_each_language_are_patterns(language: str, pattern: str, text: str) -> None:
    assert search([("file", text)], pattern, language=language).outcome == "matched"


@pytest.mark.parametrize("pattern", ["", "  ", "fn (", "}{", "x" * 5000])
def test_a_pattern_that_does_not_parse_is_an_invalid_rule(pattern: str) -> None:
    found = search([("a.rs", SOURCE)], pattern, language="rust")
    assert found.outcome == "invalid_rule"
    assert found.detail


def test_an_unknown_language_does_not_bring_the_process_down() -> None:
    assert search([("a", "x")], "x", language="cobol").outcome == "invalid_rule"


@pytest.mark.parametrize("letter", ["x", "é", "🦀"])
def test_a_file_that_is_too_large_is_not_searched_and_that_is_said(letter: str) -> None:
    fits = MAX_SOURCE // len(letter.encode())
    sources = [("a.rs", "// " + letter * fits), ("b.rs", "fn b() {}")]
    found = search(sources, "fn $N() {}", language="rust")
    assert (found.outcome, len(found.matches), found.files_searched) == ("truncated", 1, 1)
    assert "a.rs, which is larger than 4 MiB" in found.detail
    small = [("a.rs", letter * (fits // 1000)), sources[1]]
    assert search(small, "fn $N() {}", language="rust").outcome == "matched"


def test_what_does_not_occur_is_no_match() -> None:
    assert search([("a.rs", SOURCE)], "$X.expect($Y)", language="rust").outcome == "no_match"


def test_more_matches_than_the_limit_are_reported_as_truncated() -> None:
    found = search([("a.rs", SOURCE)], "$X.unwrap()", language="rust", limit=1)
    assert found.outcome == "truncated"
    assert len(found.matches) == 1


@given(st.text(max_size=60))
def test_any_text_as_a_pattern_has_a_typed_outcome(pattern: str) -> None:
    assert search([("a.rs", SOURCE)], pattern, language="rust").outcome
