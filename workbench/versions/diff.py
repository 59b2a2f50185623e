"""What changed between two artifacts: parameters, inputs, environment, counts, metrics and files. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.domain.manifest import Manifest


def diff(old: Manifest, new: Manifest) -> dict[str, Any]:
    """Only what differs, by section; each change is ``[old, new]`` with None for absent."""
    before = {file.path: file for file in old.files}
    after = {file.path: file for file in new.files}
    files = {}
    for path in sorted(before.keys() | after.keys()):
        a, b = before.get(path), after.get(path)
        if a is None or b is None or a.sha256 != b.sha256:
            files[path] = [a and a.size, b and b.size]
    sections = {
        "params": _changes(old.params, new.params),
        "inputs": _changes(_inputs(old), _inputs(new)),
        "environment": _changes(old.environment, new.environment),
        "code": {} if old.code == new.code else {"code": [old.code, new.code]},
        "seed": {} if old.seed == new.seed else {"seed": [old.seed, new.seed]},
        "counts": _changes(old.counts, new.counts),
        "metrics": _changes(old.metrics, new.metrics),
        "files": files,
    }
    return {name: changes for name, changes in sections.items() if changes}


def _inputs(manifest: Manifest) -> dict[str, str]:
    return {f"{entry.kind}/{entry.name}": entry.tree for entry in manifest.inputs}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    keys = sorted(old.keys() | new.keys())
    return {key: [old.get(key), new.get(key)] for key in keys if old.get(key) != new.get(key)}
