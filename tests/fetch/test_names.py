"""Strangers' names: whatever passes here, the store takes and a hub does not refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.domain.ids import ObjectId
from workbench.domain.tree_rules import FOLDER_MODE, RawEntry, TreeLimits, judge_entries
from workbench.fetch import names
from workbench.fetch.limits import LIMITS
from workbench.fetch.names import Taken
from workbench.store.payload.names import check_distinct, check_path

SPICE = [
    "a", "A", "é", "e\u0301", "ß", "ss", "ﬁ", "İ", "\u200b", "\u202e", "\x07", "\n", "~1", "git", ".git", ".GIT", "aux",
    "con", "com0", "lpt¹", ".", "..", " ", "-", "$(", "`", "\\", ":", "*", "\ue000", "\u0378", "\ufeff", ".rs",
    ".gitmodules", "HEAD", "refs", "objects", "\u00ad", "~", "Å", "\u212b", "q\u0307\u0323",
]  # fmt: skip
part = st.lists(st.sampled_from(SPICE) | st.text(min_size=1, max_size=2), min_size=1, max_size=4).map("".join)
paths = st.lists(st.lists(part, min_size=1, max_size=3).map("/".join), min_size=1, max_size=12)


@given(paths)
def test_what_is_taken_the_store_and_a_hub_take_too(offered: list[str]):
    taken, kept = Taken(), []
    for path in offered:
        if names.check(path, LIMITS) is None and taken.claim(path) is None:
            kept.append(path)
    for path in kept:
        check_path(f"packages/x-1.0/{path}")
    check_distinct(kept)
    folders: dict[str, dict[str, bytes]] = {}
    for path in kept:
        parts = path.split("/")
        for depth, name in enumerate(parts):
            mode = FOLDER_MODE if depth < len(parts) - 1 else b"100644"
            folders.setdefault("/".join(parts[:depth]), {})[name] = mode
    for folder, entries in folders.items():
        rows = [RawEntry(mode, name.encode(), ObjectId("0" * 40)) for name, mode in entries.items()]
        rows.sort(key=lambda row: row.name + (b"/" if row.mode == FOLDER_MODE else b""))
        assert judge_entries(rows, folder, TreeLimits()) is None


@given(st.text(max_size=30))
def test_any_text_is_judged_and_shown_on_one_printable_line(text: str):
    reason = names.check(text, LIMITS)
    assert names.shown(text).isprintable()
    assert reason is None or reason.detail.isprintable()


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("src/cafe\u0301.rs", "form"), ("src/\u212b.rs", "form"), ("a/\x1b.rs", "control"), ("a/com0.rs", "name"),
        ("a/lpt¹.rs", "name"), ("gi3abc~1/x.rs", "name"), ("a/\u00ad.rs", "name"), ("a/$(x).rs", "name"),
        ("a/`.rs", "name"),
        (".gitmodules/x.rs", "name"), ("a/\ue000.rs", "name"),
    ],
)  # fmt: skip
def test_a_name_that_would_fail_the_whole_crawl_is_refused_alone(path: str, rule: str):
    reason = names.check(path, LIMITS)
    assert reason is not None
    assert reason.rule == rule


@pytest.mark.parametrize(
    "path", ["src/lib.rs", "src/é.rs", "日本/mod.rs", "a b/c.rs", "_x/+y/@z.rs", "a/(b).rs", "x/[i].rs"]
)
def test_ordinary_names_are_taken(path: str):
    assert names.check(path, LIMITS) is None


def test_names_that_fall_together_are_taken_once_in_every_form():
    taken = Taken()
    assert taken.claim("src/Straße.rs") is None
    for other in ("src/strasse.rs", "SRC/x.rs", "src/STRASSE.rs"):
        reason = taken.claim(other)
        assert reason is not None
        assert reason.rule == "case"
    assert taken.claim("src/x.rs") is None


def test_a_folder_that_would_look_like_a_repository_is_not_completed():
    taken = Taken()
    assert taken.claim("fixture/HEAD/a.rs") is None
    assert taken.claim("fixture/objects/a.rs") is None
    reason = taken.claim("fixture/refs/a.rs")
    assert reason is not None
    assert reason.rule == "git"
    assert taken.claim("fixture/HEAD/b.rs") is None


def test_more_names_in_one_folder_than_a_hub_takes_are_left_out():
    taken = Taken()
    limit = TreeLimits().entries
    assert all(taken.claim(f"src/f{number}.rs") is None for number in range(limit))
    reason = taken.claim("src/one-more.rs")
    assert reason is not None
    assert reason.rule == "count"
    assert taken.claim("other/one-more.rs") is None


@pytest.mark.parametrize(
    ("path", "wanted", "taken"),
    [
        ("LICENSE", ("LICENSE*",), True), ("a/LICENSE-MIT", ("LICENSE*",), True),
        ("license-tool/a.png", ("license*",), False),
        ("a/b.rs", ("*.rs",), True), ("a.rs/b.png", ("*.rs",), False), ("LICENSES/MIT.txt", ("LICENSES/*",), True),
        ("x/LICENSES/MIT.txt", ("LICENSES/*",), False),
    ],
)  # fmt: skip
def test_a_glob_means_the_last_component_or_with_a_slash_the_whole_path(
    path: str, wanted: tuple[str, ...], taken: bool
):
    assert names.is_wanted(path, wanted) is taken
