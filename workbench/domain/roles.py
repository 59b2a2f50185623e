"""Who may move which refs and change which paths of main: the table of ``ci/paths.toml``. Pure.

The hub's owner is not bound by it: whoever can write to the hub's files could do all that anyway, and a table that
binds its own author could never be mended. Not here: how a pusher is known (``hub``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from workbench.domain.errors import Refused, UserError
from workbench.domain.refs import Ref
from workbench.domain.tree_rules import shown

OWNER = "owner"
FILE = "ci/paths.toml"
FORMAT = 1
_PATH = re.compile(r"(?!/)(?!(?:.*/)?\.\.?(?:/|\Z)).+\Z")
_REF = re.compile(r"(?:heads|tags|notes)/.+\Z")


@dataclass(frozen=True)
class Role:
    """Whom it is for (a pattern of pushers' names), and what they may change. An empty ``only`` allows all."""

    who: str
    only: tuple[str, ...] = ()  # files and folders
    never: tuple[str, ...] = ()
    only_refs: tuple[str, ...] = ()  # patterns of full names without ``refs/``, for example ``heads/bot/*``
    never_refs: tuple[str, ...] = ()


_ARCHITECT_NEVER = ("ci/", "hooks/", "state/", "pyproject.toml")
_ARCHITECT_REFS = ("heads/main", "heads/architect/*", "tags/v*")
_TUNER_REFS = ("heads/main", "heads/tuner/*")

# The first line whose pattern matches holds. The file on main, as it stood before the push, replaces the table.
ROLES: tuple[Role, ...] = (
    Role("tuner", only=("state/",), only_refs=_TUNER_REFS),
    Role("tuner-*", only=("state/",), only_refs=_TUNER_REFS),
    Role("architect", never=_ARCHITECT_NEVER, only_refs=_ARCHITECT_REFS),
    Role("architect-*", never=_ARCHITECT_NEVER, only_refs=_ARCHITECT_REFS),
    Role("*"),
)


def judge(pusher: str, moved: Collection[Ref], changed: Collection[str], roles: Sequence[Role] = ROLES) -> None:
    """Refused when the pusher may not move one of the refs, or change one of the paths."""
    if pusher == OWNER:
        return
    role = next((role for role in roles if fnmatchcase(pusher, role.who)), None)
    if role is None:
        raise Refused(f"{shown(pusher)} may not push", f"ask for a line in {FILE}")
    for name in sorted(str(ref).removeprefix("refs/") for ref in moved):
        if (role.only_refs and not _fits(name, role.only_refs)) or _fits(name, role.never_refs):
            raise Refused(f"{shown(pusher)} may not push {shown(name)}", _allowed(role.only_refs, role.never_refs))
    for path in sorted(changed):
        if (role.only and not _under(path, role.only)) or touches(path, role.never):
            raise Refused(f"{shown(pusher)} may not change {shown(path)}", _allowed(role.only, role.never))


def _allowed(only: Sequence[str], never: Sequence[str]) -> str:
    allowed = f"only {', '.join(only)}" if only else "anything"
    allowed += f" but {', '.join(never)}" if never else ""
    return f"allowed is {allowed}; the hub's owner can push it, or change {FILE}"


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _under(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder.rstrip("/") or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def touches(path: str, folders: Sequence[str]) -> bool:
    """Whether a change of ``path`` is one of a folder. A path that ends in ``/`` stands for anything below it."""
    return _under(path, folders) or (path.endswith("/") and any(folder.startswith(path) for folder in folders))


def parse(raw: Any) -> tuple[Role, ...]:
    """``format`` and ``[[rule]]`` tables with the fields of ``Role``; UserError for anything else."""
    hint = f"it has `format = {FORMAT}` and [[rule]] tables, see workbench/docs/formats.md"
    if not isinstance(raw, Mapping) or raw.get("format") != FORMAT or isinstance(raw.get("format"), bool):
        found = raw.get("format") if isinstance(raw, Mapping) else raw
        raise UserError(f"{FILE}: unknown format {shown(repr(found))}", hint)
    if set(raw) != {"format", "rule"} or not isinstance(raw["rule"], list):
        raise UserError(f"{FILE} is not a list of [[rule]] tables", hint)
    return tuple(_role(table) for table in raw["rule"])


def _role(table: Any) -> Role:
    hint = 'for example: who = "bot-*", only = ["docs/"], never = ["docs/private/"], only_refs = ["heads/bot/*"]'
    if not isinstance(table, Mapping) or not set(table) <= {"who", "only", "never", "only_refs", "never_refs"}:
        what = f"{FILE}: a rule has who, only, never, only_refs and never_refs, not {shown(repr(table))}"
        raise UserError(what, hint)
    who = table.get("who")
    if not isinstance(who, str) or not who:
        raise UserError(f"{FILE}: who is a pattern of pushers' names, not {shown(repr(who))}", hint)
    only, never = (_strings(table, name, _PATH, "paths") for name in ("only", "never"))
    only_refs, never_refs = (_strings(table, name, _REF, "patterns of refs") for name in ("only_refs", "never_refs"))
    return Role(who, only, never, only_refs, never_refs)


def _strings(table: Mapping[str, Any], name: str, form: re.Pattern[str], what: str) -> tuple[str, ...]:
    values = table.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) and form.match(value) for value in values):
        hint = "paths are written as in `git ls-files`, refs as heads/NAME, tags/NAME or notes/NAME, with *"
        raise UserError(f"{FILE}: {name} is a list of {what}, not {shown(repr(values))}", hint)
    return tuple(values)
