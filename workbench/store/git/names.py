"""From a name as people write it to a commit, with the nearest name where there is none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from workbench.domain.errors import NotFound, UserError
from workbench.domain.ids import ObjectId
from workbench.domain.refs import ArtifactTag, Kind, meant_by
from workbench.ports.store import Objects, Refs

_ABBREVIATED = re.compile(r"[0-9a-f]{7,40}\Z")


class Abbreviations(Protocol):
    def abbreviated(self, prefix: str) -> Sequence[ObjectId]: ...


def resolve(name: str, objects: Objects, refs: Refs, abbreviations: Abbreviations) -> ObjectId:
    """The commit that ``name`` means: see ``ports.store.Repository.resolve``."""
    for full in meant_by(name):
        if (id := _get(refs, full)) is not None:
            return objects.peel(id)
    if name == "HEAD" and (id := refs.get("HEAD")) is not None:
        return objects.peel(id)
    if (newest := _latest(name, refs)) is not None:
        return objects.peel(newest)
    if _ABBREVIATED.match(name):
        commits = [id for id in abbreviations.abbreviated(name) if objects.kind(id) in ("commit", "tag")]
        if len(commits) > 1:
            raise UserError(f"{name} is the beginning of {len(commits)} commits", "give more digits")
        if commits:
            return objects.peel(commits[0])
    raise NotFound(f"nothing is called {name!r}", _hint(name, refs.all()))


def _get(refs: Refs, full: str) -> ObjectId | None:
    try:
        return refs.get(full)
    except UserError:  # no possible name of a ref
        return None


def _latest(name: str, refs: Refs) -> ObjectId | None:
    """The newest version of ``KIND/NAME``."""
    kind, _, rest = name.partition("/")
    if kind not in {k.value for k in Kind} or not rest or "/" in rest:
        return None
    found: list[tuple[ArtifactTag, ObjectId]] = []
    for ref, id in refs.all(f"refs/tags/{name}/").items():
        try:
            found.append((ArtifactTag.parse(ref.removeprefix("refs/tags/")), id))
        except UserError:
            continue
    return max(found)[1] if found else None


def short(ref: str) -> str:
    for place in ("refs/tags/", "refs/heads/", "refs/workbench/channels/"):
        if ref.startswith(place):
            return ref.removeprefix(place)
    return ref


def _hint(name: str, known: Mapping[str, ObjectId]) -> str:
    names = {short(ref) for ref in known if not ref.startswith(("refs/workbench/runs/", "refs/workbench/journal/"))}
    names |= {n.rpartition("/")[0] for n in names if n.count("/") == 2}
    near = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else "see `workbench log` for what there is"
