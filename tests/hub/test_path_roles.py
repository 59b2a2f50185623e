"""Who may touch which path of main, by real pushes: the table holds as it stood before the push."""

from __future__ import annotations

from typing import Any

TABLE = """
format = 1
[[rule]]
who = "bot-*"
only = ["docs/"]
never = ["docs/private/"]
[[rule]]
who = "alice"
"""


def test_roles_are_those_of_the_table_on_main(desk: Any) -> None:
    hub = desk.under_test
    hub.edit({"README": "hello\n", "docs/a.md": "a\n"})
    assert hub.push("main").accepted
    hub.edit({"ci/paths.toml": TABLE})
    assert hub.push("main").accepted
    tries = [
        ("docs/a.md", "bot-1", ""),
        ("docs/private/b.md", "bot-1", "bot-1 may not change docs/private/b.md"),
        ("README", "bot-1", "allowed is only docs/ but docs/private/"),
        ("ci/paths.toml", "bot-1", "bot-1 may not change ci/paths.toml"),
        ("README", "bob", "bob may not push: ask for a line in ci/paths.toml"),
        ("docs/a.md", "Bot-1", "may not push"),
        ("README", "alice", ""),
    ]
    for number, (path, pusher, refusal) in enumerate(tries):
        before = hub.source_refs()
        hub.edit({path: f"{number}\n" if path != "ci/paths.toml" else TABLE + '[[rule]]\nwho = "*"\n'})
        pushed = hub.push("main", pusher=pusher)
        assert pushed.accepted is (not refusal), (path, pusher, pushed.text)
        assert refusal in pushed.text
        if refusal:
            assert hub.source_refs() == before
            hub.git("reset", "-q", "--hard", "HEAD~1")


def test_nobody_gives_a_right_to_themselves(desk: Any) -> None:
    hub = desk.under_test
    hub.edit({"state/a.json": "{}\n"})
    assert hub.push("main").accepted
    hub.edit({"ci/paths.toml": 'format = 1\n[[rule]]\nwho = "*"\n', "agents/a.py": "x = 1\n"})
    pushed = hub.push("main", pusher="tuner")
    assert not pushed.accepted
    assert "tuner may not change agents/a.py" in pushed.text


def test_a_merge_is_judged_by_what_it_changes_on_main_and_a_deletion_is_a_change(desk: Any) -> None:
    hub = desk.under_test
    hub.edit({"state/a.json": "{}\n", "agents/a.py": "x = 1\n"})
    assert hub.push("-o", "ci.skip", "main").accepted
    hub.git("checkout", "-q", "-b", "side")
    hub.edit({"state/b.json": "{}\n"})
    hub.git("checkout", "-q", "main")
    hub.git("merge", "-q", "--no-ff", "-m", "merge", "side")
    assert hub.push("-o", "ci.skip", "main", pusher="tuner").accepted
    hub.git("rm", "-q", "agents/a.py")
    hub.git("commit", "-q", "-m", "gone")
    assert "tuner may not change agents" in hub.push("main", pusher="tuner").text


def test_a_table_that_is_wrong_is_refused_before_it_locks_everybody_out(desk: Any) -> None:
    hub = desk.under_test
    hub.edit({"README": "hello\n"})
    assert hub.push("main").accepted
    for text, says in [
        ("[[rule]]\nwho = 3\n", "format None"),
        ("format = 1\n[[rule]]\nwho = 3\n", "3 is not text"),
        ("format = 1\n[[rule]\n", "cannot be read"),
        ("format = 1\n[[rule]]\nwho = 'a'\nonly = 'docs'\n", "is not a list"),
        ("\0", "cannot be read"),
    ]:
        hub.edit({"ci/paths.toml": text})
        pushed = hub.push("main")
        assert not pushed.accepted
        assert "ci/paths.toml" in pushed.text
        assert says in pushed.text
    hub.edit({"ci/paths.toml": TABLE})
    assert hub.push("main").accepted
    hub.git("rm", "-q", "ci/paths.toml")
    hub.git("commit", "-q", "-m", "back to the rules that come with a hub")
    assert hub.push("main").accepted


REFS = """
format = 1
[[rule]]
who = "ci"
only_refs = ["tags/release/*"]
[[rule]]
who = "*"
never_refs = ["tags/*", "notes/*"]
"""


def test_the_table_says_who_may_push_which_refs_and_does_not_bind_the_owner(desk: Any) -> None:
    hub = desk.under_test
    hub.edit({"README": "hello\n", "ci/paths.toml": REFS})
    assert hub.push("main").accepted
    hub.tag("v1.0.0")
    for pusher, what, refusal in [
        ("bob", "v1.0.0", "bob may not push tags/v1.0.0: allowed is anything but tags/*, notes/*"),
        ("ci", "main:refs/heads/side", "ci may not push heads/side: allowed is only tags/release/*"),
        ("bob", "main:refs/heads/side", ""),
        ("", "v1.0.0", ""),
    ]:
        before = hub.source_refs()
        pushed = hub.push(what, pusher=pusher)
        assert pushed.accepted is (not refusal), (pusher, what, pushed.text)
        assert refusal in pushed.text
        assert (hub.source_refs() == before) is bool(refusal)


def test_only_the_owner_skips_version_numbers(desk: Any) -> None:
    hub = desk.under_test
    hub.commit(README="hello\n")
    assert hub.push("main", hub.tag("v1.0.0"), pusher="bob").accepted
    pushed = hub.push(hub.tag("v1.4.0"), pusher="bob")
    assert not pushed.accepted
    assert "the next versions are v1.0.1, v1.1.0 and v2.0.0; only the hub's owner may skip some" in pushed.text
    assert hub.push(hub.tag("v1.1.0"), hub.tag("v1.1.1"), pusher="bob").accepted
    assert hub.push("v1.4.0").accepted


def test_a_channel_comes_to_what_the_table_has_judged(toy_desk: Any) -> None:
    """A branch is not judged by its paths: who is bound by the table cannot make it live."""
    hub, toy = toy_desk.under_test, toy_desk
    hub.edit({"agents/a.py": "x = 1\n", "state/a.json": "{}\n", "ci/tiers.toml": TIERS})
    assert hub.push("-o", "ci.skip", "main").accepted
    hub.git("checkout", "-q", "-b", "tuner/x")
    hub.edit({"agents/a.py": "x = 'hostile'\n", "ci/tiers.toml": TIERS + "# nothing is tested\n"})
    asks = ("-o", "ci.tier=micro", "-o", "promote=active")
    pushed = hub.push(*asks, "tuner/x", pusher="tuner")
    assert not pushed.accepted
    assert "tuner may promote a commit of main alone" in pushed.text
    hub.git("checkout", "-q", "main")
    hub.edit({"state/a.json": '{"x": 1}\n'})
    assert hub.push(*asks, "main", "tuner/x", pusher="tuner").accepted, "the channel is main's then"
    toy.told(hub.push("-o", "ci.tier=micro", "-o", "promote=canary", "tuner/x:tuner/y"))  # the owner may


TIERS = 'format = 1\n[[micro]]\nname = "x"\nrun = ["true"]\nwall_s = 5\n'
