"""Tiers: how much testing a change gets. ``ci/tiers.toml`` of the tested commit lists commands; they run in the sandbox
over an export of its tree. Not here: when a tier starts (``planning``), and its record (``tier_run``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workbench.domain.errors import Refused, UserError
from workbench.domain.ids import ObjectId
from workbench.domain.push import TIERS
from workbench.domain.reading import Shape, items, number, optional, parse_toml, read_or_tell, record, text
from workbench.ports.store import Objects

PATH = "ci/tiers.toml"
FORMAT = 1
MAX_COMMANDS = 50
MAX_FILES = 20_000
MAX_BYTES = 256 << 20
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
    tiers = read_or_tell(lambda: _TIERS.read(parse_toml(text), ""), what=PATH, error=UserError, hint=_HINT)
    commands = [command for tier in TIERS[: TIERS.index(name) + 1] for command in tiers[tier]]
    names = [command.name for command in commands]
    if len(set(names)) != len(names):
        raise UserError(f"{PATH}: two commands have one name", "names are unique over all tiers")
    return tuple(commands)


_HINT = """it has `format = 1` and tables such as
  [[micro]]
  name = "parse"
  run = ["python3", "-c", "…"]
  wall_s = 60"""
_COMMAND = record(
    TierCommand,
    name=text(pattern=r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?", says="a name of a-z, 0-9, - and _"),
    run=items(text(least=1, most=1 << 16), least=1),
    wall_s=optional(number(0.001, 3600), 300.0),
)
_COMMANDS = optional(items(_COMMAND, most=MAX_COMMANDS), ())
_TIERS: Shape[dict[str, tuple[TierCommand, ...]]] = record(
    dict, format=(FORMAT,), micro=_COMMANDS, fast=_COMMANDS, full=_COMMANDS
)


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
