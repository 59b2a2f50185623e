"""Who may move which refs and change which paths: the table, without a hub."""

from __future__ import annotations

import pytest

from workbench.domain import push as rules
from workbench.domain import roles
from workbench.domain.errors import Refused
from workbench.domain.refs import MAIN, AgentVersion, ArtifactTag, Branch, Kind, Notes
from workbench.domain.roles import Role
from workbench.domain.version import Version

ONE = Version(1, 0, 0)


@pytest.mark.parametrize(
    ("pusher", "path", "allowed"),
    [
        ("alice", "ci/paths.toml", True),
        ("alice", "anything/at/all", True),
        ("tuner", "state/staging.state.json", True),
        ("tuner", "state", True),
        ("tuner", "state.json", False),
        ("tuner", "states/x", False),
        ("tuner", "agents/runner.py", False),
        ("tuner-7", "agents/runner.py", False),
        ("tuner-7", "state/x", True),
        ("tunerx", "agents/runner.py", True),
        ("TUNER", "agents/runner.py", True),
        ("architect", "agents/runner.py", True),
        ("architect", "tests/micro/test_x.py", True),
        ("architect", "state/active.state.json", False),
        ("architect", "ci/pipelines/rust.toml", False),
        ("architect", "hooks/pre-receive", False),
        ("architect", "pyproject.toml", False),
        ("architect", "sub/pyproject.toml", True),
        ("architect-2", "ci", False),
    ],
)
def test_the_roles_that_come_with_a_hub(pusher: str, path: str, allowed: bool) -> None:
    if allowed:
        roles.judge(pusher, (), [path])
        return
    with pytest.raises(Refused, match=f"{pusher} may not change"):
        roles.judge(pusher, (), ["state/fine", path] if pusher.startswith("tuner") else [path])


def test_the_first_rule_that_fits_holds_and_without_one_nobody_pushes() -> None:
    table = (Role("bot-*", only=("docs/",), never=("docs/secret",)), Role("bot-root"), Role("alice"))
    roles.judge("alice", (), ["x"], table)
    roles.judge("bot-root", (), ["docs/a"], table)
    for path in ("x", "docs/secret", "docs/secret/deep"):
        with pytest.raises(Refused):
            roles.judge("bot-root", (), [path], table)
    with pytest.raises(Refused, match="bob may not push"):
        roles.judge("bob", (), [], table)


def test_a_folder_that_stands_for_very_many_changes_is_judged_by_all_that_may_lie_below_it() -> None:
    table = (
        Role("a", never=("ci/secret/x.toml",)),
        Role("b", only=("ci/open/",)),
        Role("c", only=("ci/",)),
    )
    for pusher in ("a", "b"):
        with pytest.raises(Refused):
            roles.judge(pusher, (), ["ci/"], table)
    roles.judge("a", (), ["cider/", "ci/open/"], table)
    roles.judge("c", (), ["ci/", "ci/deep/"], table)
    assert rules.tiers_for(["ci/"])
    assert rules.under_any(["tools/"], ["tools/words.py"])
    assert not rules.under_any(["tools"], ["tools/words.py"])


def test_a_table_of_rules_is_read() -> None:
    table = b'format = 1\n[[rule]]\nwho = "a*"\nonly = ["docs/"]\nnever = ["docs/x"]\n[[rule]]\nwho = "*"\n'
    assert roles.read(table) == (Role("a*", ("docs/",), ("docs/x",)), Role("*"))


@pytest.mark.parametrize(
    "text",
    [
        "", "format = 2\nrule = []", "format = true\nrule = []", "rule = []", "format = 1", 'format = 1\nrule = "x"',
        "format = 1\nrule = {}", "format = 1\nrule = []\nother = 1", "format = 1\nrule = [3]",
        "format = 1\nrule = [{}]",
        "format = 1\n[[rule]]\nwho = 3", 'format = 1\n[[rule]]\nwho = ""',
        'format = 1\n[[rule]]\nwho = "a"\nmay = ["x"]',
        *(f'format = 1\n[[rule]]\nwho = "a"\n{line}' for line in (
            'only = "docs/"', "only = [1]", 'only = [""]', 'never = ["/etc"]', 'never = ["../x"]', 'never = ["a/../b"]',
            "only = {x = 1}", 'only_refs = ["refs/heads/main"]', 'only_refs = ["main"]', "never_refs = [true]",
        )),
        "format = 1\n[[rule]", "\0", "[" + ".".join(f"k{i}" for i in range(9000)) + "]", "[[rule]]\n" * 30_000,
    ],
    ids=lambda text: ascii(text[:40]),
)  # fmt: skip
def test_a_table_that_is_wrong_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"ci/paths\.toml cannot be read"):
        roles.read(text.encode())


@pytest.mark.parametrize(
    ("pusher", "ref", "allowed"),
    [
        ("tuner", MAIN, True),
        ("tuner-3", Branch("tuner/try"), True),
        ("tuner", AgentVersion(ONE), False),
        ("tuner", Branch("architect/01"), False),
        ("architect", Branch("architect/01"), True),
        ("architect", MAIN, True),
        ("architect", AgentVersion(ONE), True),
        ("architect", ArtifactTag(Kind.RELEASE, "rust", ONE), False),
        ("architect", Notes(), False),
        ("alice", ArtifactTag(Kind.RELEASE, "rust", ONE), True),
        (roles.OWNER, Notes(), True),
    ],
)
def test_the_refs_of_the_roles_that_come_with_a_hub(pusher: str, ref: object, allowed: bool) -> None:
    if allowed:
        roles.judge(pusher, [ref], [])
        return
    with pytest.raises(Refused, match=f"{pusher} may not push"):
        roles.judge(pusher, [ref], [])


def test_a_table_says_who_may_push_which_branches_tags_and_kinds() -> None:
    table = roles.read(
        b"""format = 1
        [[rule]]
        who = "ci"
        only_refs = ["tags/release/*", "tags/metrics/rust/*"]
        [[rule]]
        who = "*"
        never_refs = ["tags/*", "heads/main"]"""
    )
    roles.judge("ci", [ArtifactTag(Kind.RELEASE, "rust", ONE), ArtifactTag(Kind.METRICS, "rust", ONE)], [], table)
    for pusher, ref in [
        ("ci", ArtifactTag(Kind.METRICS, "go", ONE)),
        ("ci", MAIN),
        ("bob", AgentVersion(ONE)),
        ("bob", MAIN),
    ]:
        with pytest.raises(Refused, match="may not push"):
            roles.judge(pusher, [Branch("side"), ref], [], table)
    roles.judge("bob", [Branch("side")], ["ci/paths.toml"], table)


def test_no_table_binds_the_owner_who_could_not_mend_it_then() -> None:
    table = roles.read(b'format = 1\n[[rule]]\nwho = "*"\nonly = ["docs/"]\nonly_refs = ["heads/side"]')
    roles.judge(roles.OWNER, [MAIN], ["ci/paths.toml"], table)
