"""The rules of a push without a hub: options, names of refs, versions, and who may touch which path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.domain import push as rules
from workbench.domain.errors import Refused, UserError
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import RefMove
from workbench.domain.push import OPTIONS, PushOptions, parse_options
from workbench.domain.refs import AgentVersion, ArtifactTag, Branch, Kind, Notes
from workbench.domain.version import Bump, Version

A, B = ObjectId("a" * 40), ObjectId("b" * 40)

# --- options ----------------------------------------------------------------------------------------------------------

GOOD = [
    ([], PushOptions()),
    (["ci.skip"], PushOptions(skip=True)),
    (["ci.tier=micro"], PushOptions(tier="micro")),
    (["ci.tier=full"], PushOptions(tier="full")),
    (["ci.variable=A=1"], PushOptions(variables={"A": "1"})),
    (["ci.variable=A="], PushOptions(variables={"A": ""})),
    (["ci.variable=A=b=c d"], PushOptions(variables={"A": "b=c d"})),
    (["ci.variable=A=1", "ci.variable=B=2", "ci.variable=A=3"], PushOptions(variables={"A": "3", "B": "2"})),
    (["stage.run=train"], PushOptions(stages=("train",))),
    (["stage.run=train", "stage.run=package"], PushOptions(stages=("train", "package"))),
    (["stage.force"], PushOptions(force=True)),
    (["run.wait"], PushOptions(wait=True)),
    (["run.wait=60"], PushOptions(wait=True, wait_s=60)),
    (["run.wait=60s"], PushOptions(wait=True, wait_s=60)),
    (["run.wait=86400"], PushOptions(wait=True, wait_s=86400)),
    (["run.dry"], PushOptions(dry=True)),
    (["ci.skip", "run.dry"], PushOptions(skip=True, dry=True)),
    (["release.bump=minor"], PushOptions(bump=Bump.MINOR)),
    (["promote=canary"], PushOptions(promote="canary")),
]


@pytest.mark.parametrize(
    ("given", "options"), GOOD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_an_option_means_what_its_usage_says(given: list[str], options: PushOptions) -> None:
    assert parse_options(given) == options


def test_every_option_of_the_table_is_tried() -> None:
    assert {text.partition("=")[0] for given, _ in GOOD for text in given} == set(OPTIONS)


BAD = [
    ("ci.skp", "did you mean ci.skip?"),
    ("ci.teir=full", "did you mean ci.tier=micro|fast|full?"),
    ("ci.var=A=1", "did you mean ci.variable=K=V?"),
    ("stage.runs=train", "did you mean stage.run=STAGE?"),
    ("stage.forced", "did you mean stage.force?"),
    ("wait", "did you mean run.wait[=SECONDS]?"),
    ("run.dri", "did you mean run.dry?"),
    ("release.bmup=minor", "did you mean release.bump=major|minor|patch?"),
    ("promot=active", "did you mean promote=CHANNEL?"),
    ("CI.SKIP", "Known are"),
    ("", "unknown push option ''"),
    ("=", "unknown push option '='"),
    (" ci.skip", "did you mean ci.skip?"),
    ("zzzzzzzz", "Known are: ci.skip"),
    ("\x1b[31mred\u202e", r"\x1b[31mred\u202e"),
    ("ci.skip=", "takes no value"),
    ("ci.skip=yes", "takes no value: write -o ci.skip"),
    ("stage.force=1", "takes no value"),
    ("run.dry=true", "takes no value"),
    ("ci.tier", "needs a value"),
    ("ci.tier=", "needs a value"),
    ("ci.tier=fsat", "did you mean 'fast'?"),
    ("ci.tier=FULL", "one of fast, full, micro"),
    ("ci.tier=micro,full", "one of fast, full, micro"),
    ("ci.variable", "needs a value"),
    ("ci.variable=A", "is not K=V"),
    ("ci.variable==1", "is not K=V"),
    ("ci.variable=1A=2", "is not K=V"),
    ("ci.variable=A B=2", "is not K=V"),
    ("ci.variable=A\n=2", "is not K=V"),
    ("ci.variable=A-$(id)=2", "is not K=V"),
    ("ci.variable=" + "A" * 65 + "=1", "is not K=V"),
    ("ci.variable=A=" + "x" * 1001, "longer than 1000"),
    ("stage.run", "needs a value"),
    ("stage.run=", "needs a value"),
    ("run.wait=", "no value after '='"),
    ("run.wait=0", "run.wait=60"),
    ("run.wait=-5", "not a number"),
    ("run.wait=1.5", "not a number"),
    ("run.wait=5m", "not a number"),
    ("run.wait=86401", "not a number"),
    ("run.wait=" + "9" * 5000, "not a number"),
    ("run.wait=²", "not a number"),
    ("run.wait=٣", "not a number"),
    ("release.bump", "needs a value"),
    ("release.bump=majr", "did you mean 'major'?"),
    ("release.bump=1", "one of major, minor, patch"),
    ("promote", "needs a value"),
    ("promote=Canary", "channel name"),
    ("promote=../active", "channel name"),
    ("promote=" + "a" * 65, "channel name"),
]


@pytest.mark.parametrize(("text", "says"), BAD, ids=lambda text: ascii(text)[:30])
def test_a_wrong_option_is_refused_with_what_is_right(text: str, says: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_options([text])
    said = f"{caught.value.what}: {caught.value.hint}"
    assert says in said
    assert said.isprintable()
    assert said.isascii()
    assert len(said) < 1000


@pytest.mark.parametrize(
    "text", ["ci.skip", "ci.tier=full", "stage.force", "run.wait", "run.dry", "promote=a", "release.bump=major"]
)
def test_an_option_that_counts_once_is_refused_twice(text: str) -> None:
    with pytest.raises(Refused, match="given twice"):
        parse_options([text, text])


@pytest.mark.parametrize(
    "other",
    [
        "ci.tier=full",
        "ci.variable=A=1",
        "stage.run=train",
        "stage.force",
        "run.wait",
        "release.bump=major",
        "promote=a",
    ],
)
def test_skipping_contradicts_whatever_needs_work_in_either_order(other: str) -> None:
    for pair in (["ci.skip", other], [other, "ci.skip"]):
        with pytest.raises(Refused, match=f"ci.skip and {other.partition('=')[0]} contradict"):
            parse_options(pair)


def test_there_are_at_most_fifty_options() -> None:
    many = [f"ci.variable=A{number}=1" for number in range(50)]
    assert len(parse_options(many).variables) == 50
    with pytest.raises(Refused, match="51 push options"):
        parse_options([*many, "ci.skip"])


@given(st.lists(st.text(max_size=30) | st.sampled_from([text for given, _ in GOOD for text in given]), max_size=6))
def test_any_options_at_all_are_understood_or_refused(texts: list[str]) -> None:
    try:
        options = parse_options(texts)
    except Refused:
        return
    kept = PushOptions.from_json(options.to_json())
    assert kept.to_json() == options.to_json()
    assert (kept.wait, kept.dry) == (False, False), "these matter to the pusher alone"


# --- refs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ref",
    ["refs/heads/main", "refs/heads/a/b-c.d", "refs/tags/v1.2.3", "refs/tags/model/rust/v1.0.0", "refs/notes/evals"],
)
def test_refs_of_the_grammar_may_be_made(ref: str) -> None:
    assert str(rules.judge_name(RefMove.named(ref, ZERO_ID, A))) == ref


@pytest.mark.parametrize(
    ("move", "says"),
    [
        (RefMove.named("refs/workbench/ledger", ZERO_ID, A), "belongs to the workbench"),
        (RefMove.named("refs/workbench/channels/active", A, B), "belongs to the workbench"),
        (RefMove.named("refs/workbench/runs/x", ZERO_ID, A), "belongs to the workbench"),
        (RefMove.named("refs/tags/v1.0.0", A, ZERO_ID), "cannot be deleted"),
        (RefMove.named("refs/tags/v1.0.0", A, B), "never changes"),
        (RefMove.named("refs/tags/raw/rust/v1.0.0", A, B), "never changes"),
        (RefMove.named("refs/tags/raw/rust/v1.0.0", A, ZERO_ID), "cannot be deleted"),
        (RefMove.named("refs/notes/evals", A, ZERO_ID), "cannot be deleted"),
        (RefMove.named("refs/heads/main", A, ZERO_ID), "cannot be deleted"),
        (RefMove.named("refs/heads/topic", A, ZERO_ID), "cannot be deleted"),
        (RefMove.named("refs/tags/v1", ZERO_ID, A), "not a name"),
        (RefMove.named("refs/tags/v1.0.0-rc1", ZERO_ID, A), "not a name"),
        (RefMove.named("refs/tags/1.0.0", ZERO_ID, A), "not a name"),
        (RefMove.named("refs/tags/v1.0.0\n", ZERO_ID, A), "not a name"),
        (RefMove.named("refs/tags/raw/Rust/v1.0.0", ZERO_ID, A), "not a name"),
        (RefMove.named("refs/tags/new/rust/v1.0.0", ZERO_ID, A), "not a name"),
        (RefMove.named("refs/tags/raw/rust/x/v1.0.0", ZERO_ID, A), "not a name"),
        (RefMove.named("refs/notes/commits", ZERO_ID, A), "not a name"),
        (RefMove.named("refs/replace/" + A, ZERO_ID, B), "not a name"),
        (RefMove.named("refs/heads/a..b", ZERO_ID, A), "not a name"),
        (RefMove.named("refs/heads/-x", ZERO_ID, A), "not a name"),
        (RefMove.named("refs/heads/a.lock", ZERO_ID, A), "not a name"),
        (RefMove.named("refs/heads/\x1b[2J", ZERO_ID, A), "not a name"),
        (RefMove.named("HEAD", ZERO_ID, A), "not a name"),
        (RefMove.named("", ZERO_ID, A), "not a name"),
    ],
    ids=lambda value: ascii(str(value.ref))[:40] if isinstance(value, RefMove) else "",
)
def test_refs_that_may_not_move_so_are_refused(move: RefMove, says: str) -> None:
    with pytest.raises(Refused) as caught:
        rules.judge_name(move)
    assert says in caught.value.what
    assert caught.value.hint


@pytest.mark.parametrize(
    ("new", "existing", "allowed"),
    [
        ("v1.0.0", [], True),
        ("v0.0.1", [], True),
        ("v1.0.1", ["v1.0.0"], True),
        ("v1.10.0", ["v1.9.0"], True),
        ("v1.9.0", ["v1.10.0"], False),
        ("v1.0.0", ["v1.0.0"], False),
        ("v1.0.5", ["v2.0.0", "v1.0.0"], False),
        ("v3.0.0", ["v2.0.0", "v1.0.0"], True),
    ],
)
def test_versions_only_rise(new: str, existing: list[str], allowed: bool) -> None:
    ref = AgentVersion(Version.parse(new))
    there = [Version.parse(text) for text in existing]
    if allowed:
        rules.judge_version(ref, there)
        return
    with pytest.raises(Refused, match="not greater than") as caught:
        rules.judge_version(ref, there)
    assert all(str(max(there).bump(bump)) in caught.value.hint for bump in Bump)


def test_a_family_is_all_versions_of_one_thing() -> None:
    version = Version(1, 2, 3)
    assert rules.family(AgentVersion(version)) == "refs/tags/"
    assert rules.family(ArtifactTag(Kind.RAW, "rust", version)) == "refs/tags/raw/rust/"


def test_branches_and_notes_only_grow() -> None:
    assert rules.needs_fast_forward(Branch("main"))
    assert rules.needs_fast_forward(Branch("topic"))
    assert rules.needs_fast_forward(Notes())
    assert not rules.needs_fast_forward(AgentVersion(Version(1, 0, 0)))


def test_the_moves_of_a_push_are_read_as_git_writes_them() -> None:
    lines = [f"{ZERO_ID} {A} refs/heads/a b", f"{A} {B} refs/heads/main"]
    assert rules.parse_updates(lines) == (
        RefMove.named("refs/heads/a b", ZERO_ID, A),
        RefMove.named("refs/heads/main", A, B),
    )
    assert rules.parse_updates([]) == ()
    with pytest.raises(Refused, match="1001 refs in one push"):
        rules.parse_updates([lines[1]] * 1001)
    with pytest.raises(UserError):
        rules.parse_updates([f"{'x' * 40} {A} refs/heads/main"])


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "asks"),
    [("agents/a.py", True), ("agents", True), ("state/x", True), ("tests/x", True), ("ci/tiers.toml", True),
     ("ci/tiers.toml.bak", False), ("agents.md", False), ("src/agents/a.py", False), ("README", False)],
)  # fmt: skip
def test_changes_of_code_state_and_tests_ask_for_a_tier(path: str, asks: bool) -> None:
    assert rules.tiers_for([path]) is asks


# --- names that mean something else -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("refs/heads/main", "the ref refs/heads/main"),
        ("refs/tags/v1.0.0", "the ref refs/tags/v1.0.0"),
        ("heads/main", "the ref refs/heads/main"),
        ("tags/v1.0.0", "the ref refs/tags/v1.0.0"),
        ("workbench/ledger", "the ref refs/workbench/ledger"),
        ("notes/evals", "the ref refs/notes/evals"),
        ("remotes/hub/main", "the ref refs/remotes/hub/main"),
        ("stash", "the ref refs/stash"),
        ("refs", "the ref refs/refs"),
        ("HEAD", "a name of git's own"),
        ("FETCH_HEAD", "a name of git's own"),
        ("Main", "main, where case does not count"),
        ("v7.7.7", "a version"),
        ("v1.2.0-rc.1", "a version"),
        ("a" * 40, "an object id"),
        ("active", "a channel"),
        ("canary", "a channel"),
        ("blue", "a channel"),
        ("release", "an artifact"),
        ("raw/rust", "an artifact"),
        ("tokenizer/rust/v1.0.0", "an artifact"),
    ],
)
def test_a_branch_that_would_be_read_as_something_else_is_refused_with_a_free_name(name: str, means: str) -> None:
    with pytest.raises(Refused, match="would be read as") as caught:
        rules.judge_name(RefMove.named(f"refs/heads/{name}", ZERO_ID, A), channels=("blue",))
    assert means in caught.value.what
    free = caught.value.hint.rpartition("HEAD:")[2]
    assert rules.judge_name(RefMove.named(free, ZERO_ID, A), channels=("blue",)) == Branch(
        free.removeprefix("refs/heads/")
    )


@pytest.mark.parametrize(
    "name",
    ["main", "v2", "v1.x", "release/1.0", "raw-data", "header", "head", "feature/refs", "abc1234", "activate"],
)
def test_a_branch_whose_name_only_resembles_something_is_allowed(name: str) -> None:
    assert rules.judge_name(RefMove.named(f"refs/heads/{name}", ZERO_ID, A), channels=("blue",)) == Branch(name)


def test_a_channel_is_not_called_as_a_branch_or_as_anything_else() -> None:
    rules.judge_channel("canary", ["main"])
    rules.judge_channel("blue", ["main"])
    for name in ("main", "side", "release", "stash", "tags"):
        with pytest.raises(Refused, match="would be read as"):
            rules.judge_channel(name, ["main", "side"])


# --- numbers that leave room ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["v1000000.0.0", "v0.1000000.0", "v0.0.1000000", "v999999999.999999999.999999999"])
def test_nobody_brings_a_number_that_leaves_no_room_above_it(text: str) -> None:
    for ref in (AgentVersion(Version.parse(text)), ArtifactTag(Kind.RAW, "rust", Version.parse(text))):
        with pytest.raises(Refused, match="above 999,999"):
            rules.judge_version(ref, [])


@pytest.mark.parametrize(
    ("new", "existing", "allowed"),
    [
        ("v1.0.0", [], True),
        ("v0.1.0", [], True),
        ("v0.0.1", [], True),
        ("v1.0.1", [], False),
        ("v2.0.0", [], False),
        ("v1.2.4", ["v1.2.3"], True),
        ("v1.3.0", ["v1.2.3"], True),
        ("v2.0.0", ["v1.2.3"], True),
        ("v1.2.5", ["v1.2.3"], False),
        ("v1.3.1", ["v1.2.3"], False),
        ("v2.1.0", ["v1.2.3"], False),
        ("v999999.0.0", ["v1.2.3"], False),
    ],
)
def test_only_the_owner_skips_numbers(new: str, existing: list[str], allowed: bool) -> None:
    ref, there = AgentVersion(Version.parse(new)), [Version.parse(text) for text in existing]
    rules.judge_version(ref, there, is_owner=True)
    if allowed:
        rules.judge_version(ref, there, is_owner=False)
        return
    with pytest.raises(Refused, match="skips numbers"):
        rules.judge_version(ref, there, is_owner=False)


def test_after_the_last_number_of_a_place_the_place_above_rises() -> None:
    last = 999_999_999
    assert Version(1, 2, last).bump(Bump.PATCH) == Version(1, 3, 0)
    assert Version(1, last, last).bump(Bump.PATCH) == Version(2, 0, 0)
    assert Version(1, last, 0).bump(Bump.MINOR) == Version(2, 0, 0)
    with pytest.raises(UserError, match="no version can follow"):
        Version(last, last, last).bump(Bump.PATCH)
