"""The ref grammar: what it builds it parses, and nothing else."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.domain.errors import UserError
from workbench.domain.ids import make_ulid
from workbench.domain.refs import (
    ACTIVE,
    CONTRACTS,
    EVALS,
    LEDGER,
    MAIN,
    RUN_CACHE,
    AgentVersion,
    ArtifactTag,
    Branch,
    Channel,
    Incoming,
    Journal,
    Kind,
    Notes,
    RunRef,
    meant_by,
    parse,
)
from workbench.domain.version import LAST, Bump, Version

NAMES = st.from_regex(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?", fullmatch=True)
VERSIONS = st.builds(Version, st.integers(0, LAST - 1), *[st.integers(0, LAST)] * 2)
ULIDS = st.builds(make_ulid, st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
PARTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_+-]{0,20}", fullmatch=True)
BRANCHES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
REFS = st.one_of(
    st.builds(Branch, BRANCHES),
    st.builds(AgentVersion, VERSIONS),
    st.builds(ArtifactTag, st.sampled_from(Kind), NAMES, VERSIONS),
    st.builds(Channel, NAMES),
    st.builds(RunRef, ULIDS),
    st.builds(Incoming, ULIDS, st.builds(AgentVersion, VERSIONS)),
    st.builds(Incoming, ULIDS, st.builds(ArtifactTag, st.sampled_from(Kind), NAMES, VERSIONS)),
    st.builds(Journal, NAMES),
    st.sampled_from([EVALS, LEDGER, RUN_CACHE, CONTRACTS]),
)


def meaning(text: str) -> str | None:
    """What the text is parsed to, written again; None when it is refused with advice."""
    try:
        return str(parse(text))
    except UserError as error:
        return None if error.hint else "refused without advice"


@given(REFS)
def test_what_is_built_is_parsed_to_the_same_value(ref):
    assert parse(str(ref)) == ref


@given(st.builds(ArtifactTag, st.sampled_from(Kind), NAMES, VERSIONS))
def test_an_artifact_is_read_back_from_what_people_write(tag):
    assert ArtifactTag.parse(tag.short) == tag


@given(st.text())
def test_garbage_is_refused_with_advice_or_means_itself(text):
    for candidate in (text, f"refs/{text}", f"refs/tags/{text}", f"refs/heads/{text}", f"refs/workbench/{text}"):
        assert meaning(candidate) in (candidate, None)


@given(REFS, st.integers(0, 200), st.sampled_from(string.printable + "é\0\x7f"))
def test_a_ref_with_one_character_changed_is_refused_or_another_ref(ref, position, character):
    text = str(ref)
    position %= len(text)
    changed = text[:position] + character + text[position + 1 :]
    assert meaning(changed) in (changed, None)


@given(BRANCHES)
def test_every_branch_passes_gits_own_rules(name):
    ref = str(Branch(name))
    assert not re.search(r"\.\.|[\x00-\x20~^:?*\[\\\x7f]|@\{|//|/\.|\.lock(/|\Z)|\.\Z|/\Z", ref)


@pytest.mark.parametrize(
    "text",
    [
        *["", "main", "HEAD", "refs/heads/", "refs/heads/a..b", "refs/heads/a.lock", "refs/heads/a.lock/b"],
        *["refs/heads/-x", "refs/heads/.a", "refs/heads/a/", "refs/heads/a\n", "refs/heads/" + "a" * 201],
        *["refs/tags/1.0.0", "refs/tags/v1.0", "refs/tags/v01.0.0", "refs/tags/v1.0.0-rc1", "refs/tags/v1.0.0\n"],
        *["refs/tags/release/v1.0.0", "refs/tags/other/rust/v1.0.0", "refs/tags/release/Rust/v1.0.0"],
        *["refs/tags/release/a/b/v1.0.0", "refs/tags/release/-a/v1.0.0", "refs/tags/release/a-/v1.0.0"],
        *["refs/notes/other", "refs/workbench/", "refs/workbench/else", "refs/workbench/runs/short"],
        *["refs/workbench/runs/8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "refs/workbench/channels/UPPER", "refs/stash"],
    ],
)
def test_what_is_not_in_the_grammar_is_refused(text):
    with pytest.raises(UserError) as refused:
        parse(text)
    assert refused.value.hint


def test_the_constants_are_what_the_documents_say():
    assert [str(ref) for ref in (MAIN, ACTIVE, EVALS, LEDGER, RUN_CACHE, Notes())] == [
        "refs/heads/main",
        "refs/workbench/channels/active",
        "refs/notes/evals",
        "refs/workbench/ledger",
        "refs/workbench/cache",
        "refs/notes/evals",
    ]


@given(VERSIONS, st.sampled_from(Bump))
def test_a_bump_is_always_later_and_the_larger_the_bump_the_later(version, bump):
    assert version < version.bump(bump)
    patch, minor, major = (version.bump(bump) for bump in (Bump.PATCH, Bump.MINOR, Bump.MAJOR))
    assert patch < minor < major or (LAST in (version.minor, version.patch) and patch <= minor <= major)
    assert Version.parse(str(version)) == version


def test_versions_sort_by_number_and_not_by_letter():
    assert max(map(Version.parse, ["v1.9.0", "v1.10.0", "v1.2.99"])) == Version(1, 10, 0)


@given(REFS)
def test_every_ref_is_meant_by_its_full_name_and_without_its_beginning(ref):
    full = str(ref)
    assert meant_by(full) == meant_by(full.removeprefix("refs/")) == (full,)


@given(st.one_of(REFS.map(str), st.text(max_size=40)))
def test_no_short_name_means_a_branch_before_a_tag_or_a_channel(name):
    meant = meant_by(name)
    branches = [ref for ref in meant if ref.startswith(("refs/heads/", "refs/remotes/"))]
    assert len(branches) < len(meant) or meant in ((name,), (f"refs/{name}",), ())
    assert meant[len(meant) - len(branches) :] == tuple(branches)


TAKEN = ["v7.7.7", "v01.2.3", "v1.2.3-rc.1", "active", "canary", *Kind, "release/rust", "release/rust/v1.0.0", "0" * 40]


@pytest.mark.parametrize("name", [*TAKEN, str(make_ulid(7, bytes(10))), "HEAD", "refs/heads/main", "tags/v1.0.0"])
def test_what_reads_as_another_name_is_no_branch(name):
    assert not {f"refs/heads/{name}", f"refs/remotes/{name}"} & set(meant_by(name))


@pytest.mark.parametrize("name", ["release/1.0", "v7", "topic", "canary-2", "deadbeef", "models", "wip/v1.0.0"])
def test_other_names_may_be_branches(name):
    assert f"refs/heads/{name}" in meant_by(name)
