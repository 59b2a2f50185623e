"""What ``workbench doctor`` looks at: the store's own checks, the sandbox, and the programs stages use."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from workbench.app import wiring
from workbench.ports.store import Finding, Repository

_TOOLS = {
    "rustc": ("compile checks (filter, evaluate) are refused", "apt-get install rustc"),
    "cargo": ("crates cannot be crawled", "apt-get install cargo"),
}
_LIBRARIES = {
    "torch": ("models cannot be trained", "pip install 'git-workbench[train]'"),
    "sentencepiece": ("tokenizers cannot be trained", "pip install 'git-workbench[train]'"),
    "llama_cpp": ("models cannot be served", "pip install 'git-workbench[inference]'"),
    "mcp": ("MCP servers cannot be started", "pip install 'git-workbench[serve]'"),
    "fastapi": ("HTTP servers cannot be started", "pip install 'git-workbench[serve]'"),
    "tree_sitter_rust": ("sources cannot be filtered", "pip install 'git-workbench[crawl]'"),
}


def examine(repository: Repository) -> Sequence[Finding]:
    """Every finding, the store's first."""
    findings = list(repository.check())
    missing = wiring.sandbox().probe()
    findings.append(
        Finding("warning", "the sandbox is not available: untrusted code is refused", missing)
        if missing
        else Finding("ok", "the sandbox works")
    )
    for tool, (consequence, fix) in _TOOLS.items():
        if shutil.which(tool):
            findings.append(Finding("ok", f"{tool} is installed"))
        else:
            findings.append(Finding("warning", f"{tool} is not installed: {consequence}", fix))
    findings.extend(_libraries())
    return findings


def _libraries() -> Sequence[Finding]:
    from importlib.util import find_spec

    absent = [
        Finding("warning", f"{name} is not installed: {consequence}", fix)
        for name, (consequence, fix) in _LIBRARIES.items()
        if find_spec(name) is None
    ]
    return absent or [Finding("ok", "every optional library is installed")]
