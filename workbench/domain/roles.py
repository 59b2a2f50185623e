"""Who may move which refs and change which paths of main: the table of ``ci/paths.toml``. Pure.

The hub's owner is not bound by it: whoever can write to the hub's files could do all that anyway, and a table that
binds its own author could never be mended. Not here: how a pusher is known (``hub``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from workbench.domain.errors import Refused
from workbench.domain.reading import BadInput, Shape, items, optional, parse_toml, record, text
from workbench.domain.refs import Ref
from workbench.domain.tree_rules import shown

OWNER = "owner"
_PUSHER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@+-]{0,62}[A-Za-z0-9])?\Z")
FILE = "ci/paths.toml"
FORMAT = 1


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


def check_pusher(name: str) -> str:
    """The name of somebody who comes by an entrance; Refused for what is none, and for the owner's."""
    if not _PUSHER.match(name):
        raise Refused(f"not a pusher's name: '{shown(name)}'", "use letters, digits and . _ @ + - inside, 64 at most")
    if name == OWNER:
        raise Refused(f"{OWNER} is who pushes as the hub's own system user", "give this entrance another name")
    return name


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


def read(data: bytes) -> tuple[Role, ...]:
    """The table of ``ci/paths.toml``; Refused for anything else."""
    try:
        return _TABLE.read(parse_toml(data), "")
    except BadInput as bad:  # not by ``read_or_tell``: who forgot `format` needs the example, too
        hint = 'for example: format = 1, then [[rule]] with who = "bot-*", only = ["docs/"], only_refs = ["heads/b/*"]'
        raise Refused(f"{FILE} cannot be read: {bad}", hint) from None


_PATHS = items(text(pattern=r"(?!/)(?!(?:.*/)?\.\.?(?:/|\Z)).+", says="a path as `git ls-files` writes it"), most=1000)
_REFS = items(text(pattern=r"(?:heads|tags|notes)/.+", says="heads/NAME, tags/NAME or notes/NAME"), most=1000)
_TABLE: Shape[tuple[Role, ...]] = record(
    lambda rule: rule,
    format=(FORMAT,),
    rule=items(
        record(
            Role,
            who=text(least=1, most=256),
            only=optional(_PATHS, ()),
            never=optional(_PATHS, ()),
            only_refs=optional(_REFS, ()),
            never_refs=optional(_REFS, ()),
        ),
        most=1000,
    ),
)
