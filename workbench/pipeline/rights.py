"""Whether what a stage declares beyond the sandbox counts: only in a definition that stands on the hub's main.

Every push of main was judged by ``ci/paths.toml`` as it stood before, so whoever wrote such a definition there was
allowed to. One on a branch, or in a commit that came some other way, was written by anybody.
"""

from __future__ import annotations

from pathlib import Path

from workbench.domain.errors import Refused
from workbench.domain.ids import ObjectId
from workbench.domain.refs import MAIN
from workbench.domain.stage import StageSpec
from workbench.pipeline.own_stage import beyond
from workbench.ports.store import Objects, Repository


def check_needs(repository: Repository, commit: ObjectId, spec: StageSpec) -> None:
    """Refused where ``commit`` defines a stage that needs what it may not have. ``repository`` is the hub."""
    more = beyond(spec)
    if not more:
        return
    main = repository.refs.get(str(MAIN))
    if main is None or not _is_ancestor(repository.objects, commit, main):
        raise Refused(
            f"stage {spec.name} {more}, and the commit that says so ({commit[:10]}) is not on main",
            f"push it by somebody who may change ci/ (git push hub {commit[:10]}:main), or leave that out",
        )
    for place in map(Path, spec.needs.write):
        hub = repository.path.resolve()
        if hub.is_relative_to(place.resolve()) or place.resolve().is_relative_to(hub):
            raise Refused(f"stage {spec.name} would write into the hub ({place})", "let it write to another folder")


def _is_ancestor(objects: Objects, old: ObjectId, new: ObjectId) -> bool:
    waiting, seen = [new], {new}
    while waiting:
        commit = waiting.pop()
        if commit == old:
            return True
        fresh = [parent for parent in objects.commit(commit).parents if parent not in seen]
        seen.update(fresh)
        waiting += fresh
    return False
