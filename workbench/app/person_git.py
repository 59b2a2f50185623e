"""The git program as the person at the keyboard has it, with their configuration. Not here: the store's own git."""

from __future__ import annotations

import os
import subprocess

from workbench.domain.errors import ToolMissing

# Set where git runs us (a hook, an alias, `git rebase --exec`): they would lead a git of ours to another place.
_PLACES = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
)  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``git`` to its end; how it ended is the caller's matter. Nothing that is missing is fetched: the repository's
    settings say by which program. ToolMissing without git."""
    environment = {name: value for name, value in os.environ.items() if name not in _PLACES}
    environment["GIT_NO_LAZY_FETCH"] = "1"
    try:
        return subprocess.run(
            ["git", *arguments], capture_output=True, encoding="utf-8", errors="replace", env=environment
        )
    except FileNotFoundError:
        raise ToolMissing("the git program is not installed", "install it, for example: apt-get install git") from None
