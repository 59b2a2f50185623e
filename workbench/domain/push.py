"""The rules of a push: which refs may move how, what the push options mean, who may touch which path. Pure.

Not here: what a pushed tree may look like (``tree_rules``), reading objects, and what a push starts (``hub``).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.domain import refs
from workbench.domain.errors import Refused, UserError
from workbench.domain.ids import ZERO_ID, object_id
from workbench.domain.ledger import RefMove
from workbench.domain.reading import flag, items, mapping, one_of, optional, read_or_tell, record, text
from workbench.domain.refs import MAIN, AgentVersion, ArtifactTag, Branch, Channel, Notes, Ref, UnknownRef
from workbench.domain.roles import touches
from workbench.domain.tree_rules import shown
from workbench.domain.version import GIVEN_MAX, Bump, Version

TIERS = ("micro", "fast", "full")
MAX_UPDATES = 1000
MAX_OPTIONS = 50
MAX_WAIT_S = 24 * 3600


@dataclass(frozen=True)
class PushOptions:
    """What ``git push -o`` asked for. Every field has an effect; see ``OPTIONS``."""

    skip: bool = False
    tier: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    force: bool = False
    wait: bool = False
    wait_s: int = 0  # 0: until the run ends
    dry: bool = False
    bump: Bump | None = None
    promote: str = ""

    def to_json(self) -> dict[str, Any]:
        """Only what was asked for."""
        every: dict[str, Any] = {
            "skip": self.skip,
            "tier": self.tier,
            "variables": dict(self.variables),
            "stages": list(self.stages),
            "force": self.force,
            "bump": self.bump.value if self.bump else "",
            "promote": self.promote,
        }
        return {name: value for name, value in every.items() if value}

    @classmethod
    def from_json(cls, raw: Any) -> PushOptions:
        """What ``to_json`` gave, also beside other things; Corrupt for anything else."""
        return read_or_tell(lambda: _OPTIONS.read(raw, ""), what="the options of a push", hint="push again")


_OPTIONS = record(
    PushOptions,
    more=True,
    skip=optional(flag(), False),
    tier=optional(text(), ""),
    variables=optional(mapping(text(most=1 << 20)), {}),
    stages=optional(items(text()), ()),
    force=optional(flag(), False),
    bump=optional(one_of(Bump), None),
    promote=optional(text(), ""),
)
_Apply = Callable[[PushOptions, str], PushOptions]


@dataclass(frozen=True)
class OptionRule:
    usage: str  # as a person writes it
    effect: str
    value: str  # "none", "optional" or "required"
    apply: _Apply


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")


def choice(what: str, value: str, allowed: Collection[str]) -> str:
    """The value; Refused, with the nearest one that is allowed, when it is not."""
    if value not in allowed:
        raise Refused(f"{what}: '{shown(value)}' is not one of {', '.join(sorted(allowed))}", _nearest(value, allowed))
    return value


def _nearest(value: str, allowed: Collection[str]) -> str:
    match = difflib.get_close_matches(value, list(allowed), n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else "choose one of them"


def _variable(options: PushOptions, value: str) -> PushOptions:
    name, equals, text = value.partition("=")
    if not equals or not _VARIABLE.match(name):
        raise Refused(f"ci.variable={shown(value)} is not K=V", "for example: git push -o ci.variable=SAMPLES=10")
    if len(text) > 1000:
        raise Refused(f"ci.variable={name} is longer than 1000 characters", "put it into a file and commit that")
    return replace(options, variables={**options.variables, name: text})


def _wait(options: PushOptions, value: str) -> PushOptions:
    if not value:
        return replace(options, wait=True)
    text = value.removesuffix("s")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_WAIT_S:
        raise Refused(f"run.wait={shown(value)} is not a number of seconds", "for example: git push -o run.wait=60")
    return replace(options, wait=True, wait_s=int(text))


def _stage(options: PushOptions, value: str) -> PushOptions:
    """Whether there is such a stage is seen where the pipelines of the push are read."""
    return replace(options, stages=(*options.stages, value))


def _promote(options: PushOptions, value: str) -> PushOptions:
    try:
        Channel(value)
    except UserError as error:
        raise Refused(f"promote: {error.what}", error.hint) from error
    return replace(options, promote=value)


OPTIONS: Mapping[str, OptionRule] = {
    "ci.skip": OptionRule("ci.skip", "start nothing; the record says so", "none", lambda o, v: replace(o, skip=True)),
    "ci.tier": OptionRule(
        "ci.tier=micro|fast|full",
        "run this tier, whatever changed",
        "required",
        lambda o, v: replace(o, tier=choice("ci.tier", v, TIERS)),
    ),
    "ci.variable": OptionRule("ci.variable=K=V", "set a variable of the run", "required", _variable),
    "stage.run": OptionRule("stage.run=STAGE", "run this stage (and no other)", "required", _stage),
    "stage.force": OptionRule(
        "stage.force", "run stages even where the result is known", "none", lambda o, v: replace(o, force=True)
    ),
    "run.wait": OptionRule("run.wait[=SECONDS]", "stream progress into the push", "optional", _wait),
    "run.dry": OptionRule("run.dry", "print the plan and change nothing", "none", lambda o, v: replace(o, dry=True)),
    "release.bump": OptionRule(
        "release.bump=major|minor|patch",
        "at least this step of the version of the release that the run makes",
        "required",
        lambda o, v: replace(o, bump=Bump(choice("release.bump", v, [b.value for b in Bump]))),
    ),
    "promote": OptionRule("promote=CHANNEL", "move this channel when the run succeeds", "required", _promote),
}
_REPEATABLE = frozenset({"ci.variable", "stage.run"})
_NEEDS_WORK = ("ci.tier", "ci.variable", "stage.run", "stage.force", "run.wait", "release.bump", "promote")


def usages() -> str:
    return ", ".join(rule.usage for rule in OPTIONS.values())


def parse_options(given: Sequence[str]) -> PushOptions:
    """Options as typed values. Refused, with the nearest match and the list, when one is unknown or contradicts."""
    if len(given) > MAX_OPTIONS:
        raise Refused(f"{len(given)} push options, {MAX_OPTIONS} are allowed", "put the rest into a file")
    options = PushOptions()
    seen: set[str] = set()
    for asked in given:
        name, equals, value = asked.partition("=")
        rule = OPTIONS.get(name)
        if rule is None:
            match = difflib.get_close_matches(name, list(OPTIONS), n=1, cutoff=0.4)
            nearest = f"did you mean {OPTIONS[match[0]].usage}? " if match else ""
            raise Refused(f"unknown push option '{shown(asked)}'", f"{nearest}Known are: {usages()}")
        if name in seen and name not in _REPEATABLE:
            raise Refused(f"push option {name} is given twice", "give it once")
        if rule.value == "none" and equals:
            raise Refused(f"push option {name} takes no value", f"write -o {rule.usage}")
        if rule.value == "required" and not value:
            raise Refused(f"push option {name} needs a value", f"write -o {rule.usage}")
        if rule.value == "optional" and equals and not value:
            raise Refused(f"push option {name}= has no value after '='", f"write -o {rule.usage}")
        seen.add(name)
        options = rule.apply(options, value)
    if options.skip and (clash := next((name for name in _NEEDS_WORK if name in seen), "")):
        raise Refused(f"ci.skip and {clash} contradict each other", "give one of them")
    return options


@dataclass(frozen=True)
class Push:
    """One push as a whole: all its refs, options and its author."""

    moves: tuple[RefMove, ...]
    options: PushOptions
    pusher: str

    def move(self, ref: Ref) -> RefMove | None:
        return next((move for move in self.moves if move.ref == ref), None)


def parse_updates(lines: Sequence[str]) -> tuple[RefMove, ...]:
    """The lines that git writes to ``pre-receive``: old, new, ref."""
    if len(lines) > MAX_UPDATES:
        raise Refused(f"{len(lines)} refs in one push, {MAX_UPDATES} are allowed", "push them in parts")
    moves = []
    for line in lines:
        parts = line.split(" ", 2)
        assert len(parts) == 3, line
        moves.append(RefMove.named(parts[2], object_id(parts[0]), object_id(parts[1])))
    return tuple(moves)


def judge_name(move: RefMove, channels: Collection[str] = ()) -> Ref:
    """The typed ref of a move that the grammar and the rules of creation and deletion allow; else Refused. ``channels``
    are those of the hub: no branch is called as one of them."""
    ref, name = move.ref, str(move.ref)
    if name.startswith(refs.OWN_NAMESPACE):
        raise Refused(
            f"{shown(name)} belongs to the workbench",
            "nothing below refs/workbench/ is pushed; use `workbench` commands instead",
        )
    if isinstance(ref, UnknownRef):
        raise Refused(f"{shown(name)} is not a name of this workspace: {ref.what}", ref.hint)
    deletes = move.new == ZERO_ID
    if isinstance(ref, AgentVersion | ArtifactTag):
        if deletes:
            raise Refused(f"tag {ref.short} cannot be deleted", "tags never change; publish a new version instead")
        if move.old not in (ZERO_ID, move.new):
            raise Refused(f"tag {ref.short} exists and never changes", "push a higher version instead")
    elif isinstance(ref, Notes) and deletes:
        raise Refused("evaluation notes cannot be deleted", "add a note instead")
    elif isinstance(ref, Branch) and move.old == ZERO_ID and (other := refs.taken_name(ref.name, channels)):
        raise Refused(
            f"branch '{shown(ref.name)}' would be read as {other}",
            f"push it under another name, for example: git push hub HEAD:refs/heads/{free_name(ref.name, channels)}",
        )
    elif ref == MAIN and deletes:
        raise Refused("branch main cannot be deleted", "push a commit that reverts what is wrong")
    elif deletes:
        raise Refused(f"{shown(name)} cannot be deleted by a push", "leave it; a hub keeps what was pushed to it")
    return ref


def free_name(name: str, channels: Collection[str] = ()) -> str:
    """A branch name that nothing else has, made from one that is taken."""
    free = "work-" + name.replace("/", "-")
    while refs.taken_name(free, channels):
        free = f"work-{free}"
    return free


def judge_channel(name: str, branches: Collection[str]) -> None:
    """Refused when a channel that a push makes would be read as something else."""
    other = "a branch" if name in branches else "" if name in refs.KNOWN_CHANNELS else refs.taken_name(name)
    if other:
        raise Refused(f"promote: channel {name!r} would be read as {other}", "choose another name for the channel")


def family(ref: AgentVersion | ArtifactTag) -> str:
    """The prefix that all versions of the same thing share: ``refs/tags/`` or ``refs/tags/kind/name/``."""
    return str(ref).removesuffix(str(ref.version))


def judge_room(ref: AgentVersion | ArtifactTag) -> None:
    """Whoever brings a version leaves room above it for those that follow."""
    if not ref.version.leaves_room:
        raise Refused(
            f"tag {shown(ref.short)} has a number above {GIVEN_MAX:,}: few versions could follow it",
            "give it a smaller number, for example the next after the latest here: workbench log",
        )


def judge_version(ref: AgentVersion | ArtifactTag, existing: Collection[Version], *, is_owner: bool = True) -> None:
    """A new version is strictly greater than every one that exists, and, but for the hub's owner, the next after it."""
    judge_room(ref)
    latest = max(existing, default=None)
    if latest is not None and ref.version <= latest:
        raise Refused(
            f"tag {ref.short} is not greater than {latest}, the latest",
            f"the next versions are {following(latest)}",
        )
    before = latest or Version(0, 0, 0)
    if not is_owner and ref.version not in [before.bump(bump) for bump in Bump]:
        raise Refused(
            f"tag {ref.short} skips numbers: {f'the latest is {latest}' if latest else 'it would be the first'}",
            f"the next versions are {following(before)}; only the hub's owner may skip some",
        )


def following(version: Version) -> str:
    """The versions that may come next, in words."""
    patch, minor, major = (version.bump(bump) for bump in (Bump.PATCH, Bump.MINOR, Bump.MAJOR))
    return f"{patch}, {minor} and {major}"


def needs_fast_forward(ref: Ref) -> bool:
    return isinstance(ref, Branch | Notes)


def tiers_for(changed: Collection[str]) -> bool:
    """Whether changed paths ask for tests: agent code, state or the tests themselves."""
    return under_any(changed, ("agents/", "state/", "tests/", "ci/tiers.toml"))


def under_any(changed: Collection[str], folders: Sequence[str]) -> bool:
    """Whether one of the paths is one of the folders (or files), lies below it, or may stand for something there."""
    return any(touches(path, folders) for path in changed)
