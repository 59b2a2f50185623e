"""What a push starts, and why: a function of what moved, the options and the commit. The hook decides it within two
seconds; what it could not decide by then, the worker does.

Changes in ``ci/pipelines/`` or in stage code start the pipelines they affect; changes in ``agents/ state/ tests/``
start a tier; a version tag starts the full tier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.domain import push as rules
from workbench.domain.errors import Refused
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import RefMove
from workbench.domain.push import PushOptions
from workbench.domain.refs import MAIN, AgentVersion, Branch, Kind
from workbench.domain.stage import StageSpec
from workbench.hub.policy import Judged
from workbench.hub.work import Work
from workbench.pipeline.definition import Definition, load, names_in, path_of
from workbench.pipeline.plan import Plan, Planner
from workbench.ports.store import Objects, Repository

BUILT_IN_CODE = ("workbench/stages",)
MAX_PARSED = 100  # definitions that are kept


class Derivation:
    """Derives the work of a push from the pipelines on main, which may use these stages besides their own."""

    def __init__(self, specs: Sequence[StageSpec]) -> None:
        self._specs = specs
        self._parsed: dict[tuple[str, ObjectId], Definition] = {}  # by name and id of the file: a push waits for it

    def work(self, objects: Objects, judged: Judged) -> tuple[Work, ...]:
        """In the order in which it runs. UserError when a pipeline's definition is wrong."""
        options = judged.push.options
        if options.skip:
            return ()
        tiers = self._tiers(judged, _targets(objects, judged.push.moves))
        pipelines = self._pipelines(objects, judged)
        if options.variables and not tiers:
            raise Refused("ci.variable has no effect: this push starts no tier", "add -o ci.tier=micro")
        if options.force and not pipelines:
            raise Refused("stage.force has no effect: this workspace has no pipeline", "commit one below ci/pipelines/")
        if options.bump and not any(work.bump for work in pipelines):
            raise Refused(
                "release.bump has no effect: this push makes no release",
                "push a change that makes one, or add -o stage.force",
            )
        if options.promote and not (tiers or pipelines):
            raise Refused("promote has no effect: this push starts no run", "add -o ci.tier=micro")
        return (*tiers, *pipelines)

    def definition(self, objects: Objects, work: Work) -> Definition:
        return self._load(objects, work.source, work.subject)

    def _load(self, objects: Objects, commit: ObjectId, name: str) -> Definition:
        entry = objects.entry(commit, path_of(name))
        found = self._parsed.get((name, entry.id)) if entry is not None else None
        if found is None:
            found = load(objects, commit, name, self._specs)
            if entry is not None:
                self._parsed = {**dict(list(self._parsed.items())[-MAX_PARSED:]), (name, entry.id): found}
        return found

    def plan(self, repository: Repository, objects: Objects, work: Work) -> Plan:
        return Planner(repository, self.definition(objects, work), work.source, objects).plan(work.mode)

    def _tiers(self, judged: Judged, targets: Sequence[tuple[str, ObjectId]]) -> tuple[Work, ...]:
        """One for each version, or one for main; and one for each other branch for which it was asked."""
        options, moves = judged.push.options, judged.push.moves
        if options.tier:
            asked = "asked for by -o ci.tier"
            branches = [
                Work("tier", options.tier, move.new, asked, of=move.ref.name, options=options)
                for move in moves
                if isinstance(move.ref, Branch) and move.new != ZERO_ID and move.ref != MAIN
            ]
            if targets:
                return (*_of_versions(targets, options.tier, asked, options), *branches)
            if judged.main is None or (branches and not any(move.ref == MAIN for move in moves)):
                return tuple(branches)
            return (Work("tier", options.tier, judged.main, asked, options=options), *branches)
        if targets:
            return _of_versions(targets, "full", "", options)
        if judged.main is None or not rules.tiers_for(judged.changed):
            return ()
        touched = sorted({path.split("/", 1)[0] for path in judged.changed if rules.tiers_for((path,))})
        why = f"{' '.join(f'{folder}/' for folder in touched)} changed"
        return (Work("tier", "micro", judged.main, why, options=options),)

    def _pipelines(self, objects: Objects, judged: Judged) -> tuple[Work, ...]:
        main, options = judged.main, judged.push.options
        if main is None or not (judged.changed or options.stages or options.force):
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
                    found.append(Work("pipeline", name, main, why, only=stage, bump=bump, options=options))
                continue
            why = self._affected(definition, judged.changed)
            if not why and options.force:
                why = "asked for by -o stage.force"
            if why:
                bump = options.bump if Kind.RELEASE in makes.values() else None
                found.append(Work("pipeline", name, main, why, bump=bump, options=options))
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
    """Refused when an option asks for what such a push never starts: work is that of main, of versions, and
    of other branches for which a tier was asked."""
    moved = [move.ref for move in moves if move.old != move.new]
    if any(ref == MAIN or isinstance(ref, AgentVersion) for ref in moved):
        return
    if option := "stage.run" if options.stages else "stage.force" if options.force else "":
        what = f"{option} has no effect: pipelines are those of main, and this push moves neither main nor a version"
        raise Refused(what, "give it with a push of main (git commit --allow-empty), or use `workbench run`")
    if options.tier and not any(isinstance(ref, Branch) for ref in moved):
        what = "ci.tier has no effect: this push moves no branch and no version"
        raise Refused(what, "give it with the push of what is to be tested")


def _targets(objects: Objects, moves: Sequence[RefMove]) -> list[tuple[str, ObjectId]]:
    """The versions among the moves and their commits, lowest first."""
    versions = [(move.ref.version, move.new) for move in moves if isinstance(move.ref, AgentVersion)]
    return [(str(version), objects.peel(id)) for version, id in sorted(versions) if id != ZERO_ID]


def _of_versions(
    targets: Sequence[tuple[str, ObjectId]], tier: str, why: str, options: PushOptions
) -> tuple[Work, ...]:
    """The tier for each commit that a version was pushed of, lowest version first: none is live untested."""
    by_commit: dict[ObjectId, list[str]] = {}
    for label, commit in targets:
        by_commit.setdefault(commit, []).append(label)
    found = []
    for commit, labels in by_commit.items():
        pushed = f"version{'s' * (len(labels) > 1)} {', '.join(labels)} {'were' if len(labels) > 1 else 'was'} pushed"
        of = labels[-1] if len(by_commit) > 1 else ""
        found.append(Work("tier", tier, commit, why or pushed, of=of, options=options))
    return tuple(found)


def describe(plan: Plan) -> list[str]:
    """A line for each step that runs, and one for those that do not."""
    lines = [f"  {step.stage:<10} {step.why}" for step in plan.runs]
    known = [step.stage for step in plan.steps if step.selected and not step.runs]
    if known:
        lines.append(f"  reused: {', '.join(known)}")
    return lines
