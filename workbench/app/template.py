"""The files that ``workbench init`` stamps out: the project's own agents/, state/, ci/, hooks/ and tests/micro/, one
copy, with a README of their own (``workspace.md``)."""

from __future__ import annotations

from pathlib import Path

import workbench
from workbench.domain.errors import WorldError

# What of the top level belongs to a workspace; the rest of ci/ is this project's own.
PARTS = ("agents", "state", "ci/pipelines", "ci/tiers.toml", "hooks", "tests/micro")
IGNORED = ("__pycache__", ".pyc")


def template_files() -> dict[str, bytes]:
    """Path -> content of every file of a new workspace, sorted by path."""
    package = Path(workbench.__file__).parent
    installed = package / "template"
    root = installed if installed.is_dir() else package.parent
    files: dict[str, bytes] = {}
    for part in PARTS:
        start = root / part
        found = [start] if start.is_file() else sorted(path for path in start.rglob("*") if path.is_file())
        for path in found:
            name = path.relative_to(root).as_posix()
            if not any(ignored in name for ignored in IGNORED):
                files[name] = path.read_bytes()
        if not any(name.startswith(part) for name in files):
            raise WorldError(f"the workspace template lacks {part} in {root}", "install workbench again")
    files["README.md"] = (Path(__file__).parent / "workspace.md").read_bytes()
    files[".gitignore"] = b"__pycache__/\n"
    return dict(sorted(files.items()))
