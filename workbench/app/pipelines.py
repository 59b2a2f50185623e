"""Planning and walking pipelines for the commands: which pipeline, which commit, by whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.app import wiring
from workbench.domain.errors import NotFound, UserError
from workbench.domain.ids import ObjectId, Ulid

if TYPE_CHECKING:
    from workbench.domain.run import RunRecord
    from workbench.pipeline.plan import Mode, Plan, Planner
    from workbench.pipeline.watch import Watcher
    from workbench.ports.store import Repository


def planner(repository: Repository, commit: str, name: str = "") -> Planner:
    """The planner of a pipeline as a commit defines it; with one pipeline there its name may be left out."""
    from workbench.pipeline.definition import load, names_in
    from workbench.pipeline.plan import Planner

    source = ObjectId(commit)
    if not repository.objects.exists(source):
        raise NotFound(
            f"commit {commit[:12]} is not on the hub, so nothing could be traced back to it",
            "push it, starting nothing: git push -o ci.skip hub HEAD (on no branch: … hub HEAD:refs/heads/NAME)",
        )
    if not name:
        names = names_in(repository.objects, source)
        if not names:
            raise NotFound(f"commit {commit[:12]} defines no pipeline", "add ci/pipelines/NAME.toml and push it")
        if len(names) > 1:
            raise UserError("there is more than one pipeline here", f"name one of: {', '.join(names)}")
        name = names[0]
    return Planner(repository, load(repository.objects, source, name, wiring.stage_specs()), source)


def walk(
    plan_of: Planner, mode: Mode, *, who: str, workers: int, watcher: Watcher, options: dict[str, Any] | None = None
) -> RunRecord:
    """Plan, record and walk; the record tells how it ended."""
    from workbench.pipeline.walk import Settings, run_pipeline

    settings = _settings(Settings, who, workers, watcher)
    clock = wiring.run_clock(plan_of.repository)
    return run_pipeline(plan_of, mode, settings, clock=clock, trigger=f"command by {who}", options=options)


def check_rights(plan_of: Planner, plan: Plan) -> None:
    """Refused where a step of the plan may not do what it declares."""
    from workbench.pipeline.walk import check_rights as check

    check(plan_of, plan)


def resume(repository: Repository, run: Ulid, *, who: str, workers: int, watcher: Watcher) -> RunRecord:
    """Take up an abandoned run, or start the work of a failed or cancelled one again."""
    from workbench.pipeline.walk import Settings
    from workbench.pipeline.walk import resume as resume_run

    settings = _settings(Settings, who, workers, watcher)
    return resume_run(repository, run, wiring.stage_specs(), settings, clock=wiring.run_clock(repository))


def _settings(make: Any, who: str, workers: int, watcher: Watcher) -> Any:
    return make(who=who, watcher=watcher, sandbox=wiring.sandbox, **({"workers": workers} if workers else {}))
