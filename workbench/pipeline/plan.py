"""What a run of a pipeline would do, and why: steps in order, each with its action key, or what it waits for.

A plan changes nothing. A step whose input will be rebuilt first has no key yet (``upstream``); the walk decides about
it again when the input exists, and reuses it if the input came out the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from workbench.domain.action import ActionParts, Change, Reason, compare
from workbench.domain.errors import NotFound, UserError
from workbench.domain.ids import ObjectId
from workbench.domain.manifest import InputEntry, Manifest
from workbench.domain.reading import flag, mapping, one_of, read_or_tell, record, text
from workbench.domain.refs import ArtifactTag, Kind
from workbench.domain.version import Bump
from workbench.pipeline.bump import decide_bump
from workbench.pipeline.code import ParsedFiles, code_digest
from workbench.pipeline.definition import Definition, StageUse
from workbench.pipeline.environment import Tools, environment_of
from workbench.pipeline.nearest import did_you_mean
from workbench.pipeline.own_stage import beyond
from workbench.ports.store import Artifact, Objects, Repository

PREVIOUS = "previous"  # the input role of a stage that compares with the last version of what it makes
HISTORY = 20  # versions that are searched for one made from the same parts

Made = Mapping[tuple[Kind, str], Artifact | None]  # what the pipeline's stages made; None: it will be rebuilt first


@dataclass(frozen=True)
class Mode:
    """Which steps are wanted: all, one (``only``), or one and all after it (``start``); ``force`` them to run."""

    only: str = ""
    start: str = ""
    force: bool = False
    bumps: Mapping[str, Bump] = field(default_factory=dict)  # kind or stage -> at least this step of its version

    def to_json(self) -> dict[str, Any]:
        bumps = {name: bump.value for name, bump in self.bumps.items()}
        return {"only": self.only, "start": self.start, "force": self.force, "bumps": bumps}

    @classmethod
    def from_json(cls, raw: Any) -> Mode:
        return read_or_tell(lambda: _MODE.read(raw, ""), what="the mode of a run", hint="start the run anew")

    def at_least(self, use: StageUse) -> Bump:
        asked = [self.bumps[name] for name in (use.spec.name, str(use.spec.makes)) if name in self.bumps]
        return max(asked, key=lambda bump: bump.weight, default=Bump.PATCH)


_MODE = record(Mode, only=text(), start=text(), force=flag(), bumps=mapping(one_of(Bump)))


@dataclass(frozen=True)
class StepInput:
    role: str
    kind: Kind
    name: str
    artifact: Artifact | None  # None: it is rebuilt first, by ``maker``
    maker: str = ""

    @property
    def entry(self) -> InputEntry:
        assert self.artifact is not None
        return InputEntry(self.kind, self.name, self.artifact.tree)


@dataclass(frozen=True)
class StepPlan:
    """What would happen to one step. ``parts`` is None while an input is still to be rebuilt."""

    use: StageUse
    selected: bool
    inputs: tuple[StepInput, ...]
    parts: ActionParts | None
    reason: Reason
    reused: Artifact | None = None  # what stands for its result when it does not run
    evidence: Mapping[str, Any] = field(default_factory=dict)  # the run cache's entry when it is reused
    version: str = ""  # what would be published, as far as it is known
    notes: tuple[str, ...] = ()  # what it may do beyond the sandbox; what it does without, for want of a program

    @property
    def stage(self) -> str:
        return self.use.spec.name

    @property
    def runs(self) -> bool:
        return self.selected and self.reason.runs

    @property
    def why(self) -> str:
        return "; ".join((str(self.reason), *self.notes))

    @property
    def key(self) -> str:
        return self.parts.key if self.parts else ""

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "runs": self.runs,
            "selected": self.selected,
            "why": str(self.reason),
            "notes": list(self.notes),
            "changes": [change.value for change in self.reason.changes],
            "action_key": self.key,
            "inputs": {i.role: i.artifact.tag.short if i.artifact else f"from {i.maker}" for i in self.inputs},
            "artifact": self.reused.tag.short if self.reused else "",
            "version": self.version,
        }


@dataclass(frozen=True)
class Plan:
    definition: Definition
    commit: ObjectId
    mode: Mode
    steps: tuple[StepPlan, ...]

    @property
    def runs(self) -> tuple[StepPlan, ...]:
        return tuple(step for step in self.steps if step.runs)

    def step(self, stage: str) -> StepPlan:
        return next(step for step in self.steps if step.stage == stage)

    def to_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.definition.name,
            "source": self.commit,
            "mode": self.mode.to_json(),
            "steps": [step.to_json() for step in self.steps],
        }


@dataclass(frozen=True)
class Planner:
    """Decides about the steps of one definition, as one commit has it, over one repository. Reads only."""

    repository: Repository
    definition: Definition
    commit: ObjectId
    objects: Objects | None = None  # where the commit is; None: in the repository

    def plan(self, mode: Mode | None = None) -> Plan:
        """All steps in order. UserError for a stage that the pipeline does not have."""
        wanted = mode or Mode()
        selected = self.selected(wanted)
        made: dict[tuple[Kind, str], Artifact | None] = {}
        steps = []
        for use in self.definition.stages:
            step = self.decide(use, made, selected=use.spec.name in selected, mode=wanted)
            if use.spec.makes is not None and (step.runs or step.reused):
                made[use.spec.makes, use.artifact] = step.reused
            steps.append(step)
        return Plan(self.definition, self.commit, wanted, tuple(steps))

    def why(self, stage: str) -> StepPlan:
        """The step of ``stage`` in a run of the whole pipeline. NotFound, with the nearest name."""
        self.definition.stage(stage)
        return self.plan().step(stage)

    def selected(self, mode: Mode) -> frozenset[str]:
        if mode.only and mode.start:
            raise UserError("one stage alone and all from a stage on exclude each other", "give one of the two")
        names = [use.spec.name for use in self.definition.stages]
        known = {*names, *(str(use.spec.makes) for use in self.definition.stages)}
        for name in mode.bumps:
            if name not in known:
                raise UserError(f"no stage or kind {name!r} to bump", did_you_mean(name, sorted(known)))
        if mode.only:
            return frozenset({self.definition.stage(mode.only).spec.name})
        if mode.start:
            return frozenset(names[names.index(self.definition.stage(mode.start).spec.name) :])
        return frozenset(names)

    def decide(self, use: StageUse, made: Made, *, selected: bool, mode: Mode) -> StepPlan:
        """What happens to a step when the stages before it made ``made``. ToolMissing for one that cannot run here."""
        step = self._decide(use, made, selected=selected, mode=mode)
        return replace(step, notes=self._notes(use)) if step.runs else step

    def _notes(self, use: StageUse) -> tuple[str, ...]:
        if more := beyond(use.spec):
            return (f"beyond the sandbox it {more}",)
        if use.spec.without is None:
            return ()
        lacks = [found for name in use.spec.all_tools(use.params) if (found := self._tools.look(name)).problem]
        said = (use.spec.without(use.params, lack.name, f"{lack.problem} ({lack.fix})") for lack in lacks)
        return tuple(note for note in said if note)

    def _decide(self, use: StageUse, made: Made, *, selected: bool, mode: Mode) -> StepPlan:
        if not selected:
            return self._unselected(use, made)
        inputs = self._inputs(use, made)
        waits = [each for each in inputs if each.artifact is None]
        parts = self._parts(use, inputs)
        old = self._last(use)
        if waits:
            return StepPlan(use, True, inputs, None, _upstream(old, parts, waits, mode.force), version=self._next(use))
        inputs, parts = self._with_previous(use, inputs, parts)
        if mode.force:
            reason = Reason((Change.FORCED,), ("forced",))
            return StepPlan(use, True, inputs, parts, reason, version=self._version(use, inputs, parts, mode))
        entry = self.repository.run_cache.get(parts.key)
        if entry is not None:
            reused, lost = self._entry_artifact(use, entry)
            if not lost:
                told = reused.tag.short if reused else "checked before"
                reason = Reason((Change.KNOWN,), (f"nothing changed: {told}",))
                return StepPlan(use, True, inputs, parts, reason, reused, entry)
            reason = Reason((Change.FIRST,), (f"{entry['artifact']} is no longer there",))
        else:
            reason = compare(old, parts)
            if not reason.runs:  # the newest entry under this name is the same action, but its entry is gone
                reason = Reason((Change.FIRST,), ("the run cache no longer knows it",))
        return StepPlan(use, True, inputs, parts, reason, version=self._version(use, inputs, parts, mode))

    def _unselected(self, use: StageUse, made: Made) -> StepPlan:
        """A step that is not wanted: what it made before stands for it."""
        reason = Reason((Change.KNOWN,), ("not asked for",))
        if use.spec.makes is None:
            return StepPlan(use, False, (), None, reason)
        try:
            whole = self._decide(use, made, selected=True, mode=Mode())
            reused = whole.reused
        except NotFound:
            reused = None
        if reused is None:
            latest = self.repository.artifacts.latest(use.spec.makes, use.artifact)
            reused = self.repository.artifacts.get(latest) if latest else None
            if reused:
                told = "not asked for; its latest version stands for it, although a whole run would rebuild it"
                reason = Reason((Change.KNOWN,), (told,))
        return StepPlan(use, False, (), None, reason, reused)

    def _inputs(self, use: StageUse, made: Made) -> tuple[StepInput, ...]:
        makers = {
            (other.spec.makes, other.artifact): other.spec.name
            for other in self.definition.stages
            if other.spec.makes is not None
        }
        found = []
        for kind in use.spec.reads:
            name = self.definition.name
            maker = makers.get((kind, name), "")
            artifact = made[kind, name] if (kind, name) in made else self._latest(kind, name, use, maker)
            found.append(StepInput(kind.value, kind, name, artifact, maker))
        return tuple(found)

    def _latest(self, kind: Kind, name: str, use: StageUse, maker: str) -> Artifact:
        tag = self.repository.artifacts.latest(kind, name)
        if tag is None:
            todo = f"run the stage {maker} first" if maker else f"publish or import {kind}/{name} first"
            raise NotFound(f"stage {use.spec.name} reads {kind}/{name}, and there is none yet", todo)
        return self.repository.artifacts.get(tag)

    def _parts(self, use: StageUse, inputs: Sequence[StepInput]) -> ActionParts:
        return ActionParts(
            stage=use.spec.name,
            name=use.artifact,
            makes=str(use.spec.makes or ""),
            code=self._codes[use.spec.name],
            params=use.params,
            seed=use.seed,
            inputs={each.role: each.artifact.tree for each in inputs if each.artifact},
            environment=environment_of(use.spec, self.definition.threads, use.params, self._tools),
        )

    @cached_property
    def _tools(self) -> Tools:
        """Asked once for each plan: a tool may be replaced while the worker lives."""
        return Tools()

    @cached_property
    def _codes(self) -> Mapping[str, str]:
        objects = self.objects or self.repository.objects
        parsed = ParsedFiles(self.repository.path / "workbench" / "code.json")
        codes = {use.spec.name: code_digest(use.spec, objects, self.commit, parsed) for use in self.definition.stages}
        parsed.save()
        return codes

    def _last(self, use: StageUse) -> ActionParts | None:
        entry = self.repository.run_cache.last(use.spec.name, use.artifact)
        return ActionParts.from_json(entry["parts"]) if entry else None

    def _with_previous(
        self, use: StageUse, inputs: tuple[StepInput, ...], parts: ActionParts
    ) -> tuple[tuple[StepInput, ...], ActionParts]:
        """Add the version to compare with: the newest; but what was already made from the same parts keeps its own,
        else each run would follow its own result."""
        if not use.spec.previous or use.spec.makes is None:
            return inputs, parts
        previous = self._previous(use.spec.makes, use.artifact, parts)
        if previous is None:
            return inputs, parts
        extra = StepInput(PREVIOUS, use.spec.makes, use.artifact, previous)
        return (*inputs, extra), replace(parts, inputs={**parts.inputs, PREVIOUS: previous.tree})

    def _previous(self, kind: Kind, name: str, parts: ActionParts) -> Artifact | None:
        artifacts = self.repository.artifacts
        tags = list(artifacts.list(kind, name))[::-1]
        for tag in tags[:HISTORY]:
            manifest = artifacts.get(tag).manifest
            if _same_parts(manifest, parts, kind):
                own = next((each.tree for each in manifest.inputs if each.kind is kind), None)
                return artifacts.by_tree(kind, own) if own else None
        return artifacts.get(tags[0]) if tags else None

    def _entry_artifact(self, use: StageUse, entry: Mapping[str, Any]) -> tuple[Artifact | None, bool]:
        """What a run-cache entry stands for, and whether it has been deleted since."""
        if use.spec.makes is None:
            return None, False
        if not entry["artifact"]:
            return None, True
        try:
            artifact = self.repository.artifacts.get(ArtifactTag.parse(entry["artifact"]))
        except NotFound:
            return None, True
        return artifact, artifact.tree != entry["tree"]

    def _next(self, use: StageUse) -> str:
        latest = self.repository.artifacts.latest(use.spec.makes, use.artifact) if use.spec.makes else None
        return f"after {latest.version}" if latest else "the first"

    def _version(self, use: StageUse, inputs: Sequence[StepInput], parts: ActionParts, mode: Mode) -> str:
        """The version that a run would publish if the payload changes no ids."""
        if use.spec.makes is None:
            return ""
        latest = self.repository.artifacts.latest(use.spec.makes, use.artifact)
        if latest is None:
            return "the first"
        old = self.repository.artifacts.get(latest)
        decision = decide_bump(
            use.spec,
            old.manifest,
            manifest_of(use, parts, inputs),
            old_inputs=input_tags(old),
            new_inputs=[each.artifact.tag for each in inputs if each.artifact],
            at_least=mode.at_least(use),
        )
        return f"{latest.version.bump(decision.bump)} ({decision.bump})"


def manifest_of(use: StageUse, parts: ActionParts, inputs: Sequence[StepInput]) -> Manifest:
    """The manifest of what the step makes, before its files, counts and metrics are known."""
    assert use.spec.makes is not None
    return Manifest(
        kind=use.spec.makes,
        name=use.artifact,
        inputs=tuple(sorted(each.entry for each in inputs)),
        params=parts.params,
        seed=parts.seed,
        stage=parts.stage,
        code=parts.code,
        environment=parts.environment,
        action_key=parts.key,
    )


def input_tags(artifact: Artifact) -> list[ArtifactTag]:
    return [ArtifactTag.parse(short) for short, _ in artifact.inputs]


def _same_parts(manifest: Manifest, parts: ActionParts, made: Kind) -> bool:
    """Whether an artifact was made from ``parts``, whatever it was compared with."""
    inputs = {each.kind.value: each.tree for each in manifest.inputs if each.kind is not made}
    ours = {"stage": parts.stage, "code": parts.code, "seed": parts.seed}
    theirs = {"stage": manifest.stage, "code": manifest.code, "seed": manifest.seed}
    return (
        ours == theirs
        and inputs == dict(parts.inputs)
        and dict(manifest.params) == dict(parts.params)
        and dict(manifest.environment) == dict(parts.environment)
    )


def _upstream(old: ActionParts | None, new: ActionParts, waits: Sequence[StepInput], force: bool) -> Reason:
    lines = tuple(f"input {each.role} is rebuilt first, by {each.maker}" for each in waits)
    if force:
        return Reason((Change.FORCED, Change.UPSTREAM), ("forced", *lines))
    if old is None:
        return Reason((Change.FIRST, Change.UPSTREAM), ("never ran", *lines))
    waiting = {each.role: old.inputs[each.role] for each in waits if each.role in old.inputs}
    previous = {PREVIOUS: old.inputs[PREVIOUS]} if PREVIOUS in old.inputs else {}
    rest = compare(old, replace(new, inputs={**new.inputs, **waiting, **previous}))
    if not rest.runs:
        return Reason((Change.UPSTREAM,), lines)
    return Reason((*rest.changes, Change.UPSTREAM), (*rest.details, *lines))
