"""``verify --rebuild REF``: build an artifact and all it was made from again, in an empty store, and compare tree ids.

The roots are recorded bytes, stored anew: imports, and what a stage compared its result with (``previous``), because
that is a fact of then, not of the lineage. The crawl is run again over the bytes that it recorded, with no network. All
else is run again from the parameters in the manifests. Where one differs, the steps after it go on from the recorded
one, so that each row judges one stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workbench.domain.action import ActionParts, compare
from workbench.domain.errors import NotFound, WorkbenchError
from workbench.domain.ids import ObjectId, Ulid
from workbench.domain.manifest import PAYLOAD
from workbench.domain.refs import Kind
from workbench.domain.stage import StageSpec
from workbench.domain.version import Bump
from workbench.pipeline import watch
from workbench.pipeline.code import code_digest
from workbench.pipeline.definition import StageUse, load, names_in
from workbench.pipeline.environment import environment_of
from workbench.pipeline.plan import PREVIOUS, StepInput, StepPlan
from workbench.pipeline.publish import stage_output
from workbench.pipeline.rights import check_needs
from workbench.pipeline.step import Listener, StepRun
from workbench.ports.sandbox import Sandbox
from workbench.ports.store import Artifact, Repository
from workbench.ports.work import Clock
from workbench.system.trees import remove_tree


@dataclass(frozen=True)
class Row:
    """One artifact of the lineage: ``how`` is rebuilt or recorded; ``note`` says what failed or cannot be equal."""

    kind: Kind
    tag: str
    expected: ObjectId
    got: str
    how: str
    note: str = ""

    @property
    def equal(self) -> bool:
        return self.expected == self.got


@dataclass
class Rebuild:
    """Builds the lineage of one artifact of ``repository`` again in ``fresh``, with ``workers``, below ``folder``."""

    repository: Repository
    fresh: Repository
    specs: Sequence[StageSpec]
    folder: Path
    clock: Clock
    workers: int
    who: str
    watcher: watch.Watcher = field(default_factory=watch.Silent)
    sandbox: Callable[[], Sandbox] | None = None  # for the workspace's own stages
    _stand_in: dict[ObjectId, Artifact] = field(default_factory=dict, init=False)  # recorded tree -> in ``fresh``

    def of(self, artifact: Artifact) -> Sequence[Row]:
        """Rows in the order in which the artifacts were made, ``artifact`` last."""
        run = self.clock.ulid()
        return [self._row(each, recorded, run) for each, recorded in self._lineage(artifact)]

    def _lineage(self, artifact: Artifact) -> list[tuple[Artifact, bool]]:
        """Every artifact it rests on, inputs first; and whether it is taken as recorded."""
        order: dict[ObjectId, tuple[Artifact, bool]] = {}

        def visit(each: Artifact, recorded: bool) -> None:
            if each.tree in order:
                return
            if not recorded:
                for entry in each.manifest.inputs:
                    found = self.repository.artifacts.by_tree(entry.kind, entry.tree)
                    if found is None:
                        lost = f"{entry.kind}/{entry.name} {entry.tree[:10]}"
                        raise NotFound(
                            f"{each.tag.short} was made from {lost}, which is not here",
                            "fetch it from the hub: git fetch hub --tags",
                        )
                    visit(found, entry.kind is each.tag.kind or _is_imported(found))
            order[each.tree] = (each, recorded)

        visit(artifact, _is_imported(artifact))
        return list(order.values())

    def _row(self, recorded: Artifact, taken: bool, run: Ulid) -> Row:
        tag = recorded.tag
        if taken:
            stored = self._store_again(recorded)
            return Row(tag.kind, tag.short, recorded.tree, stored.tree, "recorded")
        note = ""
        try:
            step = self._plan(recorded)
            note = _unequal(recorded, step.parts)
            self.watcher.on(watch.StepStarted(step.stage, f"rebuild of {tag.short}"))
            got = self._build(recorded, step, run)
            equal = got == recorded.tree
            self.watcher.on(watch.StepEnded(step.stage, "equal" if equal else "different", tag.short, error=note))
        except (WorkbenchError, OSError) as error:
            self._store_again(recorded)
            return Row(tag.kind, tag.short, recorded.tree, "", "rebuilt", str(error))
        return Row(tag.kind, tag.short, recorded.tree, got, "rebuilt", note)

    def _plan(self, recorded: Artifact) -> StepPlan:
        """The step as its manifest tells it, by the code and the environment of now."""
        manifest, spec = recorded.manifest, self._spec(recorded)
        use = StageUse(spec, manifest.name, manifest.params, manifest.seed)
        inputs = tuple(
            StepInput(
                PREVIOUS if entry.kind is manifest.kind else entry.kind.value,
                entry.kind,
                entry.name,
                self._stand_in[entry.tree],
            )
            for entry in manifest.inputs
        )
        parts = ActionParts(
            stage=spec.name,
            name=manifest.name,
            makes=str(manifest.kind),
            code=code_digest(spec, self.repository.objects, ObjectId(recorded.source)),
            params=manifest.params,
            seed=manifest.seed,
            inputs={each.role: each.entry.tree for each in inputs},
            environment=environment_of(spec, self._threads(recorded), manifest.params),
        )
        reason = compare(None, parts)
        return StepPlan(use, True, inputs, parts, reason)

    def _build(self, recorded: Artifact, step: StepPlan, run: Ulid) -> ObjectId:
        folder = self.folder / f"{recorded.tag.kind}-{recorded.tree[:10]}"
        folder.mkdir(parents=True)
        threads = self._threads(recorded) if step.use.spec.hardware else self.workers
        commit = ObjectId(recorded.source)
        replayed = self._store_again(recorded) if step.use.spec.replays else None
        try:
            check_needs(self.repository, commit, step.use.spec)
            sandbox = self.sandbox() if step.use.spec.command and self.sandbox else None
            process = StepRun(
                self.fresh, run, step, folder, self.repository.objects, commit, threads, replayed, sandbox
            )
            result = process.execute(self._listener(step.stage))
            staged = stage_output(self.fresh, step, process.output, result)
        finally:
            remove_tree(folder)
        if staged.tree != recorded.tree:
            self._store_again(recorded)
        else:
            self._stand_in[recorded.tree] = self.fresh.artifacts.publish(
                staged, bump=Bump.PATCH, who=self.who, why=f"rebuild of {recorded.tag.short}"
            )
        return staged.tree

    def _store_again(self, recorded: Artifact) -> Artifact:
        """The recorded bytes, hashed and stored anew in the empty store."""
        folder = self.folder / f"recorded-{recorded.tree[:10]}"
        try:
            self.repository.artifacts.checkout(recorded, folder)
            payload = folder / PAYLOAD
            staged = self.fresh.artifacts.stage(payload, recorded.manifest)
        finally:
            remove_tree(folder)
        stored = self.fresh.artifacts.publish(
            staged, bump=Bump.PATCH, who=self.who, why=f"recorded bytes of {recorded.tag.short}"
        )
        self._stand_in[recorded.tree] = stored
        return stored

    def _spec(self, recorded: Artifact) -> StageSpec:
        name = recorded.manifest.stage
        for spec in self.specs:
            if spec.name == name:
                return spec
        commit = ObjectId(recorded.source) if recorded.source else None
        if commit is not None and self.repository.objects.exists(commit):
            for pipeline in names_in(self.repository.objects, commit):
                definition = load(self.repository.objects, commit, pipeline, self.specs)
                for use in definition.stages:
                    if use.spec.name == name:
                        return use.spec
        raise NotFound(
            f"{recorded.tag.short} was made by a stage {name!r} that is not known here", "fetch its source commit"
        )

    @staticmethod
    def _threads(recorded: Artifact) -> int:
        return int(recorded.manifest.environment.get("threads", "1"))

    def _listener(self, stage: str) -> Listener:
        return Listener(
            progress=lambda event: self.watcher.on(watch.StepProgress.of(stage, event)),
            line=lambda text: self.watcher.on(watch.StepLine(stage, text)),
            checkpointed=lambda: None,
            is_stopped=lambda: False,
        )


def _is_imported(artifact: Artifact) -> bool:
    return artifact.manifest.stage in ("", "import")


def _unequal(recorded: Artifact, parts: ActionParts | None) -> str:
    """Why the trees cannot be equal: the code or the environment is not the one of then."""
    assert parts is not None
    manifest = recorded.manifest
    found = []
    if manifest.code != parts.code:
        found.append(f"made by other code: check out {recorded.source[:10]} and verify with that workbench")
    for name in sorted({*manifest.environment, *parts.environment}):
        old, new = manifest.environment.get(name, "none"), parts.environment.get(name, "none")
        if old != new:
            found.append(f"{name} was {old}, is {new}")
    return "; ".join(found)
