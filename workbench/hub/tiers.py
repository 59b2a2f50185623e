"""Tiers: how much testing a change gets. ``ci/tiers.toml`` of the tested commit lists commands; they run in the sandbox
over an export of its tree. Not here: when a tier starts (``planning``), and its record (``tier_run``).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.domain.errors import Refused, UserError
from workbench.domain.ids import ObjectId
from workbench.domain.push import TIERS
from workbench.ports.store import Objects

PATH = "ci/tiers.toml"
FORMAT = 1
MAX_COMMANDS = 50
MAX_FILES = 20_000
MAX_BYTES = 256 << 20
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?\Z")
_COMPILE = (
    "import ast, pathlib, sys; files = sorted(p for d in ('agents', 'tests') for p in pathlib.Path(d).rglob('*.py')); "
    "[ast.parse(p.read_bytes(), str(p)) for p in files]; print(len(files), 'Python files parse')"
)
DEFAULT = f"""format = 1
[[micro]]
name = "parse"
run = ["python3", "-c", {_COMPILE!r}]
"""


@dataclass(frozen=True)
class TierCommand:
    name: str
    run: tuple[str, ...]
    wall_s: float = 300.0


def load_tier(objects: Objects, commit: ObjectId, name: str) -> tuple[TierCommand, ...]:
    """The commands of a tier: those of the smaller tiers first. UserError when the file is wrong."""
    entry = objects.entry(commit, PATH)
    text = objects.read_file(commit, PATH) if entry is not None else DEFAULT.encode()
    return parse_tier(text, name)


def parse_tier(text: bytes, name: str) -> tuple[TierCommand, ...]:
    try:
        raw = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{PATH} is not TOML: {error}", "repair it and push again") from error
    unknown = set(raw) - {"format", *TIERS}
    if unknown or raw.get("format") != FORMAT:
        what = f"unknown key {sorted(unknown)[0]!r}" if unknown else f"unknown format {raw.get('format')!r}"
        raise UserError(f"{PATH}: {what}", f"it has `format = {FORMAT}` and [[micro]], [[fast]], [[full]] tables")
    commands = [c for tier in TIERS[: TIERS.index(name) + 1] for c in _commands(raw.get(tier, []), tier)]
    names = [command.name for command in commands]
    if len(set(names)) != len(names):
        raise UserError(f"{PATH}: two commands have one name", "names are unique over all tiers")
    return tuple(commands)


def _commands(tables: Any, tier: str) -> list[TierCommand]:
    if not isinstance(tables, list) or len(tables) > MAX_COMMANDS:
        raise UserError(f"{PATH}: [[{tier}]] is a list of at most {MAX_COMMANDS} tables", "see ci/tiers.toml")
    return [_command(table, tier) for table in tables]


def _command(table: Mapping[str, Any], tier: str) -> TierCommand:
    hint = '[[micro]] with name = "parse", run = ["python3", "-c", "…"] and, if wanted, wall_s = 60'
    if not isinstance(table, Mapping) or set(table) - {"name", "run", "wall_s"}:
        raise UserError(f"{PATH}: a command of {tier} has name, run and wall_s", hint)
    name, run, wall_s = table.get("name"), table.get("run"), table.get("wall_s", 300)
    if not isinstance(name, str) or not _NAME.match(name):
        raise UserError(f"{PATH}: {name!r} is no name for a command", hint)
    if not isinstance(run, list) or not run or not all(isinstance(word, str) and word for word in run):
        raise UserError(f"{PATH}: run of {name} is not a list of words", hint)
    if isinstance(wall_s, bool) or not isinstance(wall_s, int | float) or not 0 < wall_s <= 3600:
        raise UserError(f"{PATH}: wall_s of {name} is not between 0 and 3600", hint)
    return TierCommand(name, tuple(run), float(wall_s))


def export(objects: Objects, commit: ObjectId, into: Path) -> None:
    """The tree of a commit as plain files: no links, within bounds; the policy has looked at its names."""
    count = size = 0
    for entry in objects.walk(commit):
        if entry.mode not in (0o100644, 0o100755):
            continue
        data = objects.read_blob(entry.id)
        count, size = count + 1, size + len(data)
        if count > MAX_FILES or size > MAX_BYTES:
            raise Refused("the workspace is too large to be tested", f"at most {MAX_FILES:,} files and 256 MiB")
        target = into / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(0o755 if entry.mode == 0o100755 else 0o644)
