"""The rules of a push: which refs may move how, what the push options mean, who may touch which path. Pure.

Not here: what a pushed tree may look like (``tree_rules``), reading objects, and what a push starts (``hub``).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from workbench.domain import refs
from workbench.domain.errors import Refused, UserError
from workbench.domain.ids import ZERO_ID, object_id
from workbench.domain.ledger import RefMove
from workbench.domain.refs import MAIN, AgentVersion, ArtifactTag, Branch, Channel, Notes, Ref
from workbench.domain.tree_rules import shown
from workbench.domain.version import Bump, Version

TIERS = ("micro", "fast", "full")
MAX_UPDATES = 1000
MAX_OPTIONS = 50
MAX_WAIT_S = 24 * 3600
PATHS_FILE = "ci/paths.toml"
PATHS_FORMAT = 1


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
    def from_json(cls, raw: Mapping[str, Any]) -> PushOptions:
        return cls(
            skip=bool(raw.get("skip", False)),
            tier=str(raw.get("tier", "")),
            variables={str(k): str(v) for k, v in raw.get("variables", {}).items()},
            stages=tuple(str(s) for s in raw.get("stages", ())),
            force=bool(raw.get("force", False)),
            bump=Bump(raw["bump"]) if raw.get("bump") else None,
            promote=str(raw.get("promote", "")),
        )


_Apply = Callable[[PushOptions, str], PushOptions]


@dataclass(frozen=True)
class OptionRule:
    usage: str  # as a person writes it
    effect: str
    value: str  # "none", "optional" or "required"
    apply: _Apply


_PATH = re.compile(r"(?!/)(?!(?:.*/)?\.\.?(?:/|\Z)).+\Z")
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
    for text in given:
        name, equals, value = text.partition("=")
        rule = OPTIONS.get(name)
        if rule is None:
            match = difflib.get_close_matches(name, list(OPTIONS), n=1, cutoff=0.4)
            nearest = f"did you mean {OPTIONS[match[0]].usage}? " if match else ""
            raise Refused(f"unknown push option '{shown(text)}'", f"{nearest}Known are: {usages()}")
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
        return next((move for move in self.moves if move.ref == str(ref)), None)


def parse_updates(lines: Sequence[str]) -> tuple[RefMove, ...]:
    """The lines that git writes to ``pre-receive``: old, new, ref."""
    if len(lines) > MAX_UPDATES:
        raise Refused(f"{len(lines)} refs in one push, {MAX_UPDATES} are allowed", "push them in parts")
    moves = []
    for line in lines:
        parts = line.split(" ", 2)
        assert len(parts) == 3, line
        moves.append(RefMove(parts[2], object_id(parts[0]), object_id(parts[1])))
    return tuple(moves)


def judge_name(move: RefMove) -> Ref:
    """The typed ref of a move that the grammar and the rules of creation and deletion allow; else Refused."""
    if move.ref.startswith(refs.OWN_NAMESPACE):
        raise Refused(
            f"{shown(move.ref)} belongs to the workbench",
            "nothing below refs/workbench/ is pushed; use `workbench` commands instead",
        )
    try:
        ref = refs.parse(move.ref)
    except UserError as error:
        raise Refused(f"{shown(move.ref)} is not a name of this workspace: {error.what}", error.hint) from error
    deletes = move.new == ZERO_ID
    if isinstance(ref, AgentVersion | ArtifactTag):
        if deletes:
            raise Refused(f"tag {ref.short} cannot be deleted", "tags never change; publish a new version instead")
        if move.old not in (ZERO_ID, move.new):
            raise Refused(f"tag {ref.short} exists and never changes", "push a higher version instead")
    elif isinstance(ref, Notes) and deletes:
        raise Refused("evaluation notes cannot be deleted", "add a note instead")
    elif ref == MAIN and deletes:
        raise Refused("branch main cannot be deleted", "push a commit that reverts what is wrong")
    elif deletes:
        raise Refused(f"{shown(move.ref)} cannot be deleted by a push", "leave it; a hub keeps what was pushed to it")
    return ref


def family(ref: AgentVersion | ArtifactTag) -> str:
    """The prefix that all versions of the same thing share: ``refs/tags/`` or ``refs/tags/kind/name/``."""
    return str(ref).removesuffix(str(ref.version))


def judge_version(ref: AgentVersion | ArtifactTag, existing: Collection[Version]) -> None:
    """A new version is strictly greater than every one that exists."""
    latest = max(existing, default=None)
    if latest is not None and ref.version <= latest:
        raise Refused(
            f"tag {ref.short} is not greater than {latest}, the latest",
            f"the next versions are {latest.bump(Bump.PATCH)}, {latest.bump(Bump.MINOR)} and {latest.bump(Bump.MAJOR)}",
        )


def needs_fast_forward(ref: Ref) -> bool:
    return isinstance(ref, Branch | Notes)


@dataclass(frozen=True)
class PathRule:
    """Whom it is for (a pattern of pusher names), and the folders they may, or may not, change."""

    who: str
    only: tuple[str, ...] = ()  # empty: everything
    never: tuple[str, ...] = ()


# The first line whose pattern matches holds. ``ci/paths.toml`` on main, as it stood before the push, replaces it.
PATH_RULES: tuple[PathRule, ...] = (
    PathRule("tuner", only=("state/",)),
    PathRule("tuner-*", only=("state/",)),
    PathRule("architect", never=("ci/", "hooks/", "state/", "pyproject.toml")),
    PathRule("architect-*", never=("ci/", "hooks/", "state/", "pyproject.toml")),
    PathRule("*"),
)


def judge_paths(pusher: str, changed: Collection[str], rules: Sequence[PathRule] = PATH_RULES) -> None:
    """Refused when the pusher may not change one of the paths."""
    rule = next((rule for rule in rules if fnmatchcase(pusher, rule.who)), None)
    if rule is None:
        raise Refused(f"{shown(pusher)} may not push", f"ask for a line in {PATHS_FILE}")
    for path in sorted(changed):
        if (rule.only and not _under(path, rule.only)) or _touches(path, rule.never):
            allowed = f"only {', '.join(rule.only)}" if rule.only else "anything"
            allowed += f" but {', '.join(rule.never)}" if rule.never else ""
            raise Refused(
                f"{shown(pusher)} may not change {shown(path)}",
                f"allowed is {allowed}; a person can push it, or change {PATHS_FILE}",
            )


def _under(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder.rstrip("/") or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _touches(path: str, folders: Sequence[str]) -> bool:
    """Whether a change of ``path`` is one of a folder. A path that ends in ``/`` stands for anything below it."""
    return _under(path, folders) or (path.endswith("/") and any(folder.startswith(path) for folder in folders))


def parse_path_rules(raw: Any) -> tuple[PathRule, ...]:
    """``format`` and ``[[rule]]`` tables with ``who``, ``only`` and ``never``; UserError for anything else."""
    hint = f"it has `format = {PATHS_FORMAT}` and [[rule]] tables, see workbench/docs/formats.md"
    if not isinstance(raw, Mapping) or raw.get("format") != PATHS_FORMAT or isinstance(raw.get("format"), bool):
        found = raw.get("format") if isinstance(raw, Mapping) else raw
        raise UserError(f"{PATHS_FILE}: unknown format {shown(repr(found))}", hint)
    if set(raw) != {"format", "rule"} or not isinstance(raw["rule"], list):
        raise UserError(f"{PATHS_FILE} is not a list of [[rule]] tables", hint)
    return tuple(_path_rule(table) for table in raw["rule"])


def _path_rule(table: Any) -> PathRule:
    hint = 'for example: who = "bot-*", only = ["docs/"], never = ["docs/private/"]'
    if not isinstance(table, Mapping) or not set(table) <= {"who", "only", "never"}:
        raise UserError(f"{PATHS_FILE}: a rule has who, only and never, not {shown(repr(table))}", hint)
    who, only, never = table.get("who"), table.get("only", []), table.get("never", [])
    if not isinstance(who, str) or not who:
        raise UserError(f"{PATHS_FILE}: who is a pattern of pushers' names, not {shown(repr(who))}", hint)
    for paths in (only, never):
        if not isinstance(paths, list) or not all(isinstance(path, str) and _PATH.match(path) for path in paths):
            raise UserError(f"{PATHS_FILE}: only and never are lists of paths, not {shown(repr(paths))}", hint)
    return PathRule(who, tuple(only), tuple(never))


def tiers_for(changed: Collection[str]) -> bool:
    """Whether changed paths ask for tests: agent code, state or the tests themselves."""
    return under_any(changed, ("agents/", "state/", "tests/", "ci/tiers.toml"))


def under_any(changed: Collection[str], folders: Sequence[str]) -> bool:
    """Whether one of the paths is one of the folders (or files), lies below it, or may stand for something there."""
    return any(_touches(path, folders) for path in changed)
