"""``ports.store.RunCache``: action key -> what it made, as a tree of small JSON files in Git.

::

    <k[:2]>/<k>            {"artifact", "tree", "commit", "parts"}
    last/<stage>/<name>    the key that the stage made last under this name

Written only as part of a ledger entry, so an artifact's tag and its cache entry appear together or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.domain import manifest
from workbench.domain.action import PARTS
from workbench.domain.canonical import canonical_lines
from workbench.domain.ids import digest
from workbench.domain.ledger import Action
from workbench.domain.reading import (
    INT_MIN,
    Shape,
    anything,
    load_json,
    mapping,
    optional,
    record,
    text,
    unchanged,
    whole,
)
from workbench.domain.refs import RUN_CACHE, check_name
from workbench.ports.store import Ledger, Objects, Refs

_RESULT: Shape[dict[str, Any]] = record(dict, counts=mapping(whole(INT_MIN)), metrics=mapping(anything()))
_ENTRY = unchanged(record(dict, artifact=text(), tree=text(), commit=text(), parts=PARTS, result=optional(_RESULT, {})))


def entry_files(key: str, entry: Mapping[str, Any]) -> dict[str, bytes | None]:
    """The changes to the run cache's tree that enter ``entry`` under ``key``."""
    digest(key)
    files: dict[str, bytes | None] = {f"{key[:2]}/{key}": canonical_lines(dict(entry))}
    parts = entry.get("parts") or {}
    if parts.get("stage") and parts.get("name"):
        files[_last(parts["stage"], parts["name"])] = f"{key}\n".encode()
    return files


def find(objects: Objects, refs: Refs, key: str) -> Mapping[str, Any] | None:
    data = _read(objects, refs, f"{key[:2]}/{key}")
    if data is None:
        return None
    what = f"run cache entry {key}"
    entry: Mapping[str, Any] = load_json(
        data, _ENTRY, what=what, limits=manifest.LIMITS, hint="run the stage with `stage.force`"
    )
    return entry


def _last(stage: str, name: str) -> str:
    return f"last/{check_name(stage, 'stage')}/{check_name(name, 'artifact name')}"


def _read(objects: Objects, refs: Refs, path: str) -> bytes | None:
    top = refs.get(str(RUN_CACHE))
    if top is None:
        return None
    found = objects.entry(top, path)
    return None if found is None else objects.read_blob(found.id)


class StoredRunCache:
    def __init__(self, objects: Objects, refs: Refs, ledger: Ledger) -> None:
        self._objects = objects
        self._refs = refs
        self._ledger = ledger

    def get(self, key: str) -> Mapping[str, Any] | None:
        return find(self._objects, self._refs, digest(key))

    def last(self, stage: str, name: str) -> Mapping[str, Any] | None:
        key = _read(self._objects, self._refs, _last(stage, name))
        return None if key is None else self.get(key.decode("ascii", "replace").strip())

    def put(self, key: str, entry: Mapping[str, Any], *, who: str, why: str) -> None:
        self._ledger.change(Action.PUBLISH, [], who=who, why=why, evidence={"key": key}, files=entry_files(key, entry))
