"""How this installation came here, and so the command that adds an optional part to it.

Where it came from is what the installer wrote beside it (PEP 610, ``direct_url.json``). A name on a package index is
given only to who installed it from there. Not here: what is missing, and what for.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

NAME = "git-native-workbench"  # of the distribution; the command and the package are called workbench
_SOURCE = Path(__file__).resolve().parents[2]


def install_command(extra: str = "", found: Distribution | None = None) -> str:
    """The command that adds the extra ``extra`` (none: what is always needed) to this installation; it runs as printed
    in any folder. ``found``: the installation, where it is not the running one."""
    found = found or _own()
    if found is None:  # run from its folder, never installed
        return _setup(_SOURCE, extra)
    wanted = f"[{extra}]" if extra else ""
    origin = _origin(found)
    url = str(origin.get("url", ""))
    if not url:
        return _pip(f"{NAME}{wanted}=={found.version}")
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        return _pip(f"{NAME}{wanted} @ {vcs['vcs']}+{url}@{vcs['commit_id']}")
    if urlsplit(url).scheme != "file":
        return _pip(f"{NAME}{wanted} @ {url}")
    path = Path(unquote(urlsplit(url).path))
    if not origin.get("dir_info", {}).get("editable"):
        return _pip(f"{path}{wanted}")
    if Path(sys.prefix) == path / ".venv":
        return _setup(path, extra)
    return _pip("-e", f"{path}{wanted}")


def command_for(library: str, found: Distribution | None = None) -> str:
    """The command that installs the distribution ``library``, with the first extra that brings it."""
    found = found or _own()
    for line in (found.requires or ()) if found else ():
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"""extra == ['"]([\w-]+)['"]""", line)
        if name and extra and _same(name.group(), library):
            return install_command(extra.group(1), found)
    return install_command("", found)


def wheel_command(wheel: str) -> str:
    """The command that puts a wheel in the place of what is installed of it, also of the same version. ``wheel`` is a
    word of a shell."""
    return _pip("--no-deps", "--force-reinstall") + f" {wheel}"


def _own() -> Distribution | None:
    try:
        return Distribution.from_name(NAME)
    except PackageNotFoundError:
        return None


def _origin(found: Distribution) -> dict[str, Any]:
    text = found.read_text("direct_url.json")
    return dict(json.loads(text)) if text else {}


def _pip(*requirement: str) -> str:
    return shlex.join([sys.executable, "-m", "pip", "install", *requirement])


def _setup(folder: Path, extra: str) -> str:
    return shlex.join([str(folder / "ci/setup"), *([extra] if extra else [])])


def _same(one: str, other: str) -> bool:
    """PEP 503: case and the kind of separator do not count."""
    return re.sub(r"[-_.]+", "-", one).lower() == re.sub(r"[-_.]+", "-", other).lower()
