"""The next version of an artifact, by rule: computed, not typed. Pure.

==========  ==================================================================================================
major       a consumer must change: the output's format, a file or parameter that defines token ids, or the ids of
            an input that stand in the output; or the stage says so
minor       parameters or the stage's code changed
patch       only inputs, the seed or the environment changed
==========  ==================================================================================================

A person may ask for more, never for less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workbench.domain.manifest import Manifest
from workbench.domain.refs import ArtifactTag
from workbench.domain.stage import StageSpec
from workbench.domain.version import Bump


@dataclass(frozen=True)
class Decision:
    bump: Bump
    why: tuple[str, ...]


def decide_bump(
    spec: StageSpec,
    old: Manifest | None,
    new: Manifest,
    *,
    old_inputs: Sequence[ArtifactTag] = (),
    new_inputs: Sequence[ArtifactTag] = (),
    breaks: str = "",
    at_least: Bump = Bump.PATCH,
) -> Decision:
    """How ``new`` differs from ``old``, the newest version (None: there is none, and the first one follows)."""
    if old is None:
        return Decision(Bump.PATCH, ("the first version",))
    reasons = {
        Bump.MAJOR: _major(spec, old, new, old_inputs, new_inputs, breaks),
        Bump.MINOR: _minor(old, new),
        Bump.PATCH: _patch(old, new),
    }
    by_rule = next((bump for bump in (Bump.MAJOR, Bump.MINOR) if reasons[bump]), Bump.PATCH)
    if at_least.weight > by_rule.weight:
        return Decision(at_least, (f"{at_least} was asked for (by rule {by_rule})",))
    return Decision(by_rule, tuple(reasons[by_rule]))


def _major(
    spec: StageSpec,
    old: Manifest,
    new: Manifest,
    old_inputs: Sequence[ArtifactTag],
    new_inputs: Sequence[ArtifactTag],
    breaks: str,
) -> list[str]:
    found = [breaks] if breaks else []
    before, after = old.environment.get("format", "1"), new.environment.get("format", "1")
    if before != after:
        found.append(f"output format {before} -> {after}")
    found += [
        f"parameter {name} defines ids" for name in spec.major_params if old.params.get(name) != new.params.get(name)
    ]
    if new.files:
        digests_before, digests_after = _digests(old), _digests(new)
        found += [
            f"{path} defines ids"
            for path in spec.major_files
            if path in digests_before and digests_before[path] != digests_after.get(path)
        ]
    majors_before = {tag.kind: tag.version.major for tag in old_inputs}
    found += [
        f"its input {tag.kind} took a major step, to {tag.version}"
        for tag in new_inputs
        if tag.kind in spec.carries and majors_before.get(tag.kind, tag.version.major) != tag.version.major
    ]
    return found


def _minor(old: Manifest, new: Manifest) -> list[str]:
    changed = [name for name in sorted({*old.params, *new.params}) if old.params.get(name) != new.params.get(name)]
    found = [f"parameter {name} changed" for name in changed]
    return [*found, "the stage's code changed"] if old.code != new.code or old.stage != new.stage else found


def _patch(old: Manifest, new: Manifest) -> list[str]:
    found = ["inputs changed"] if sorted(old.inputs) != sorted(new.inputs) else []
    found += ["the seed changed"] if old.seed != new.seed else []
    found += ["the environment changed"] if old.environment != new.environment else []
    return found


def _digests(manifest: Manifest) -> Mapping[str, str]:
    return {entry.path: entry.sha256 for entry in manifest.files}
