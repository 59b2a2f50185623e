"""What a push starts, and why: a function of what moved, the options and the commit. The worker derives it again.

Changes in ``ci/pipelines/`` or in stage code start the pipelines they affect; changes in ``agents/ state/ tests/``
start a tier; a version tag starts the full tier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.domain import push as rules
from workbench.domain.errors import Refused
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import RefMove
from workbench.domain.push import PushOptions
from workbench.domain.refs import MAIN, AgentVersion, Branch, Kind
from workbench.domain.stage import StageSpec
from workbench.domain.version import Bump
from workbench.pipeline.definition import Definition, load, names_in, path_of
from workbench.pipeline.plan import Mode, Plan, Planner
from workbench.ports.store import Objects, Repository

BUILT_IN_CODE = ("workbench/stages",)
MAX_PARSED = 100  # definitions that are kept


@dataclass(frozen=True)
class Job:
    """One thing to run: a pipeline (or one stage of it), or a tier, as ``source`` defines it."""

    kind: str  # "pipeline" or "tier"
    subject: str
    source: ObjectId
    why: str
    only: str = ""  # one stage alone
    of: str = ""  # of a tier: which branch other than main, or which of several versions, it tests
    bump: Bump | None = None  # at least this step of the release that it makes
    options: PushOptions = field(default_factory=PushOptions)

    @property
    def mode(self) -> Mode:
        bumps = {Kind.RELEASE.value: self.bump} if self.bump else {}
        return Mode(only=self.only, force=self.options.force, bumps=bumps)

    @property
    def label(self) -> str:
        """Tells it from the other jobs of its push."""
        only, of = f" ({self.only} alone)" if self.only else "", f" of {self.of}" if self.of else ""
        return f"{self.kind} {self.subject}{only}{of}"


@dataclass(frozen=True)
class Started:
    """What moved, as the derivation needs it: where main stands after the push, and what changed on it."""

    moves: tuple[RefMove, ...]
    main: ObjectId | None
    changed: frozenset[str]
    targets: tuple[tuple[str, ObjectId], ...] = ()  # version tags and their commits


class Derivation:
    """Derives jobs of the pipelines on main, which may use these stages besides their own."""

    def __init__(self, specs: Sequence[StageSpec]) -> None:
        self._specs = specs
        self._parsed: dict[tuple[str, ObjectId], Definition] = {}  # by name and id of the file: a push waits for it

    def jobs(self, objects: Objects, started: Started, options: PushOptions) -> tuple[Job, ...]:
        """In the order in which they run. UserError when a pipeline's definition is wrong."""
        if options.skip:
            return ()
        tiers = self._tiers(started, options)
        pipelines = self._pipelines(objects, started, options)
        if options.variables and not tiers:
            raise Refused("ci.variable has no effect: this push starts no tier", "add -o ci.tier=micro")
        if options.force and not pipelines:
            raise Refused("stage.force has no effect: this workspace has no pipeline", "commit one below ci/pipelines/")
        if options.bump and not any(job.bump for job in pipelines):
            raise Refused(
                "release.bump has no effect: this push makes no release",
                "push a change that makes one, or add -o stage.force",
            )
        return (*tiers, *pipelines)

    def definition(self, objects: Objects, job: Job) -> Definition:
        return self._load(objects, job.source, job.subject)

    def _load(self, objects: Objects, commit: ObjectId, name: str) -> Definition:
        entry = objects.entry(commit, path_of(name))
        found = self._parsed.get((name, entry.id)) if entry is not None else None
        if found is None:
            found = load(objects, commit, name, self._specs)
            if entry is not None:
                self._parsed = {**dict(list(self._parsed.items())[-MAX_PARSED:]), (name, entry.id): found}
        return found

    def plan(self, repository: Repository, job: Job) -> Plan:
        definition = self.definition(repository.objects, job)
        return Planner(repository, definition, job.source).plan(job.mode)

    def _tiers(self, started: Started, options: PushOptions) -> tuple[Job, ...]:
        """One for each version, or one for main; and one for each other branch for which it was asked."""
        if options.tier:
            asked = "asked for by -o ci.tier"
            branches = [
                Job("tier", options.tier, move.new, asked, of=move.ref.name, options=options)
                for move in started.moves
                if isinstance(move.ref, Branch) and move.new != ZERO_ID and move.ref != MAIN
            ]
            if started.targets:
                return (*_of_versions(started, options.tier, asked, options), *branches)
            if started.main is None or (branches and not any(move.ref == MAIN for move in started.moves)):
                return tuple(branches)
            return (Job("tier", options.tier, started.main, asked, options=options), *branches)
        if started.targets:
            return _of_versions(started, "full", "", options)
        if started.main is None or not rules.tiers_for(started.changed):
            return ()
        touched = sorted({path.split("/", 1)[0] for path in started.changed if rules.tiers_for((path,))})
        why = f"{' '.join(f'{folder}/' for folder in touched)} changed"
        return (Job("tier", "micro", started.main, why, options=options),)

    def _pipelines(self, objects: Objects, started: Started, options: PushOptions) -> tuple[Job, ...]:
        main = started.main
        if main is None or not (started.changed or options.stages or options.force):
            self._check_stages(options, {})
            return ()
        definitions = {name: self._load(objects, main, name) for name in names_in(objects, main)}
        self._check_stages(options, definitions)
        found = []
        for name, definition in definitions.items():
            makes = {use.spec.name: use.spec.makes for use in definition.stages}
            if options.stages:
                for stage in dict.fromkeys(stage for stage in options.stages if stage in makes):
                    bump = options.bump if makes[stage] is Kind.RELEASE else None
                    why = "asked for by -o stage.run"
                    found.append(Job("pipeline", name, main, why, only=stage, bump=bump, options=options))
                continue
            why = self._affected(definition, started.changed)
            if not why and options.force:
                why = "asked for by -o stage.force"
            if why:
                bump = options.bump if Kind.RELEASE in makes.values() else None
                found.append(Job("pipeline", name, main, why, bump=bump, options=options))
        return tuple(found)

    def _check_stages(self, options: PushOptions, definitions: Mapping[str, Definition]) -> None:
        """Refused when a stage that was asked for is in no pipeline of main."""
        there = {use.spec.name for definition in definitions.values() for use in definition.stages}
        for stage in options.stages:
            rules.choice("stage.run", stage, {*there, *(spec.name for spec in self._specs)})
            if stage not in there:
                what = f"no pipeline on main has the stage {stage}" if there else "this workspace has no pipeline"
                hint = f"choose one of {', '.join(sorted(there))}" if there else "commit one below ci/pipelines/"
                raise Refused(f"stage.run: {what}", hint)

    def _affected(self, definition: Definition, changed: frozenset[str]) -> str:
        if rules.under_any(changed, (definition.path,)):
            return f"{definition.path} changed"
        code = [path for use in definition.stages for path in use.spec.code_paths]
        return "stage code changed" if rules.under_any(changed, (*BUILT_IN_CODE, *code)) else ""


def check_effect(moves: Sequence[RefMove], options: PushOptions) -> None:
    """Refused when an option asks for what the queue would not find after the push: it looks at main, at versions, and
    at other branches for which a tier was asked."""
    moved = [move.ref for move in moves if move.old != move.new]
    if any(ref == MAIN or isinstance(ref, AgentVersion) for ref in moved):
        return
    if option := "stage.run" if options.stages else "stage.force" if options.force else "":
        what = f"{option} has no effect: pipelines are those of main, and this push moves neither main nor a version"
        raise Refused(what, "give it with a push of main (git commit --allow-empty), or use `workbench run`")
    if options.tier and not any(isinstance(ref, Branch) for ref in moved):
        what = "ci.tier has no effect: this push moves no branch and no version"
        raise Refused(what, "give it with the push of what is to be tested")


def started_by(objects: Objects, moves: Sequence[RefMove], main: ObjectId | None, changed: frozenset[str]) -> Started:
    """``targets`` are filled in from the version tags among the moves."""
    targets = []
    for move in moves:
        ref = move.ref
        if isinstance(ref, AgentVersion) and move.new != ZERO_ID:
            targets.append((ref.version, objects.peel(move.new)))
    ordered = tuple((str(version), commit) for version, commit in sorted(targets))
    return Started(tuple(moves), main, changed, ordered)


def _of_versions(started: Started, tier: str, why: str, options: PushOptions) -> tuple[Job, ...]:
    """The tier for each commit that a version was pushed of, lowest version first: none is live untested."""
    by_commit: dict[ObjectId, list[str]] = {}
    for label, commit in started.targets:
        by_commit.setdefault(commit, []).append(label)
    jobs = []
    for commit, labels in by_commit.items():
        pushed = f"version{'s' * (len(labels) > 1)} {', '.join(labels)} {'were' if len(labels) > 1 else 'was'} pushed"
        of = labels[-1] if len(by_commit) > 1 else ""
        jobs.append(Job("tier", tier, commit, why or pushed, of=of, options=options))
    return tuple(jobs)


def describe(plan: Plan) -> list[str]:
    """A line for each step that runs, and one for those that do not."""
    lines = [f"  {step.stage:<10} {step.why}" for step in plan.runs]
    known = [step.stage for step in plan.steps if step.selected and not step.runs]
    if known:
        lines.append(f"  reused: {', '.join(known)}")
    return lines


def to_json(job: Job) -> dict[str, Any]:
    return {"kind": job.kind, "subject": job.subject, "source": job.source, "why": job.why, "only": job.only}
