"""What a push starts, and why: a function of what moved, the options and the commit. The worker derives it again.

Changes in ``ci/pipelines/`` or in stage code start the pipelines they affect; changes in ``agents/ state/ tests/``
start a tier; a version tag starts the full tier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.domain import push as rules
from workbench.domain import refs
from workbench.domain.errors import Refused
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import RefMove
from workbench.domain.push import PushOptions
from workbench.domain.refs import MAIN, AgentVersion, Branch
from workbench.domain.stage import StageSpec
from workbench.pipeline.definition import Definition, load, names_in, path_of
from workbench.pipeline.plan import Mode, Plan, Planner
from workbench.ports.store import Objects, Repository

BUILT_IN_CODE = ("workbench/stages",)


@dataclass(frozen=True)
class Job:
    """One thing to run: a pipeline (or one stage of it), or a tier, as ``source`` defines it."""

    kind: str  # "pipeline" or "tier"
    subject: str
    source: ObjectId
    why: str
    only: str = ""  # one stage alone
    force: bool = False
    options: PushOptions = field(default_factory=PushOptions)

    @property
    def mode(self) -> Mode:
        bumps = {"release": self.options.bump} if self.options.bump else {}
        return Mode(only=self.only, force=self.force, bumps=bumps)

    @property
    def label(self) -> str:
        return f"{self.kind} {self.subject}" + (f" ({self.only} alone)" if self.only else "")


@dataclass(frozen=True)
class Started:
    """What moved, as the derivation needs it: where main stands after the push, and what changed on it."""

    moves: tuple[RefMove, ...]
    main: ObjectId | None
    changed: frozenset[str]
    targets: tuple[tuple[str, ObjectId], ...] = ()  # version tags and their commits


class Derivation:
    """Derives jobs; remembers which paths are the code of which pipeline, by the pipeline file's id."""

    def __init__(self, specs: Sequence[StageSpec]) -> None:
        self._specs = specs
        self._code: dict[ObjectId, tuple[str, ...]] = {}

    @property
    def stage_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self._specs)

    def jobs(self, objects: Objects, started: Started, options: PushOptions) -> tuple[Job, ...]:
        """In the order in which they run. UserError when a pipeline's definition is wrong."""
        if options.skip:
            return ()
        tier = self._tier(started, options)
        pipelines = self._pipelines(objects, started, options)
        if options.stages and not pipelines:
            raise Refused("stage.run: this workspace has no pipeline", "commit one below ci/pipelines/")
        if options.variables and not tier:
            raise Refused("ci.variable has no effect: this push starts no tier", "add -o ci.tier=micro")
        if options.bump and not pipelines:
            raise Refused("release.bump has no effect: this push starts no pipeline", "push a change of ci/pipelines/")
        return (*tier, *pipelines)

    def definition(self, objects: Objects, job: Job) -> Definition:
        return load(objects, job.source, job.subject, self._specs)

    def plan(self, repository: Repository, job: Job) -> Plan:
        definition = self.definition(repository.objects, job)
        return Planner(repository, definition, job.source).plan(job.mode)

    def _tier(self, started: Started, options: PushOptions) -> tuple[Job, ...]:
        source, why, name = started.main, "", ""
        branch = next((m for m in started.moves if _is_branch(m)), None)
        if started.targets:
            label, source = started.targets[-1]
            name, why = "full", f"version {label} was pushed"
        elif rules.tiers_for(started.changed):
            touched = sorted({path.split("/", 1)[0] for path in started.changed if rules.tiers_for((path,))})
            name, why = "micro", f"{' '.join(f'{folder}/' for folder in touched)} changed"
        if options.tier:
            name, why = options.tier, "asked for by -o ci.tier"
            source = (
                source if started.targets or str(MAIN) in {m.ref for m in started.moves} or not branch else branch.new
            )
        return (Job("tier", name, source, why, options=options),) if name and source else ()

    def _pipelines(self, objects: Objects, started: Started, options: PushOptions) -> tuple[Job, ...]:
        main = started.main
        if main is None or not (started.changed or options.stages or options.force):
            return ()
        found = []
        for name in names_in(objects, main):
            why = self._affected(objects, main, name, started.changed)
            if options.stages:
                stages = load(objects, main, name, self._specs).stages
                has = {use.spec.name for use in stages}
                for stage in (s for s in options.stages if s in has):
                    asked = "asked for by -o stage.run"
                    found.append(Job("pipeline", name, main, asked, stage, options.force, options))
            elif why or options.force:
                why = why or "asked for by -o stage.force"
                found.append(Job("pipeline", name, main, why, force=options.force, options=options))
        return tuple(found)

    def _affected(self, objects: Objects, main: ObjectId, name: str, changed: frozenset[str]) -> str:
        path = path_of(name)
        if path in changed:
            return f"{path} changed"
        if rules.under_any(changed, BUILT_IN_CODE):
            return "stage code changed"
        entry = objects.entry(main, path)
        assert entry is not None
        if entry.id not in self._code:
            uses = load(objects, main, name, self._specs).stages
            self._code[entry.id] = tuple(path for use in uses for path in use.spec.code_paths)
        return "stage code changed" if rules.under_any(changed, self._code[entry.id]) else ""


def started_by(objects: Objects, moves: Sequence[RefMove], main: ObjectId | None, changed: frozenset[str]) -> Started:
    """``targets`` are filled in from the version tags among the moves."""
    targets = []
    for move in moves:
        ref = refs.parse(move.ref)
        if isinstance(ref, AgentVersion) and move.new != ZERO_ID:
            targets.append((ref.version, objects.peel(move.new)))
    ordered = tuple((str(version), commit) for version, commit in sorted(targets))
    return Started(tuple(moves), main, changed, ordered)


def describe(plan: Plan) -> list[str]:
    """A line for each step that runs, and one for those that do not."""
    lines = [f"  {step.stage:<10} {step.reason}" for step in plan.runs]
    known = [step.stage for step in plan.steps if step.selected and not step.runs]
    if known:
        lines.append(f"  reused: {', '.join(known)}")
    return lines


def _is_branch(move: RefMove) -> bool:
    return move.new != ZERO_ID and isinstance(refs.parse(move.ref), Branch)


def to_json(job: Job) -> dict[str, Any]:
    return {"kind": job.kind, "subject": job.subject, "source": job.source, "why": job.why, "only": job.only}
