"""What a finished step made becomes an artifact: objects first, then tag and run-cache entry as one ledger entry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from workbench.domain.run import RunRecord
from workbench.domain.stage import StageResult
from workbench.pipeline.bump import decide_bump
from workbench.pipeline.plan import Mode, StepPlan, input_tags, manifest_of
from workbench.ports.store import Artifact, Repository, Staged


def stage_output(repository: Repository, step: StepPlan, output: Path, result: StageResult) -> Staged:
    """The objects of what a step left; no ref names them yet."""
    assert step.parts is not None
    manifest = manifest_of(step.use, step.parts, step.inputs)
    return repository.artifacts.stage(
        output, replace(manifest, counts=dict(result.counts), metrics=dict(result.metrics))
    )


def publish(
    repository: Repository,
    step: StepPlan,
    output: Path,
    result: StageResult,
    *,
    record: RunRecord,
    mode: Mode,
    who: str,
) -> tuple[Artifact | None, str]:
    """The artifact and why its version took this step; evidence alone for a stage that makes none."""
    assert step.parts is not None
    why = f"{step.stage}: {step.reason}"
    if step.use.spec.makes is None:
        evidence = {"counts": dict(result.counts), "metrics": dict(result.metrics)}
        entry = {"artifact": "", "tree": "", "commit": "", "parts": step.parts.to_json(), "result": evidence}
        repository.run_cache.put(step.key, entry, who=who, why=why)
        return None, ""
    artifacts = repository.artifacts
    staged = stage_output(repository, step, output, result)
    latest = artifacts.latest(step.use.spec.makes, step.use.artifact)
    old = artifacts.get(latest) if latest else None
    inputs = [each.artifact for each in step.inputs if each.artifact]
    decision = decide_bump(
        step.use.spec,
        old.manifest if old else None,
        staged.manifest,
        old_inputs=input_tags(old) if old else (),
        new_inputs=[each.tag for each in inputs],
        breaks=result.breaks,
        at_least=mode.at_least(step.use),
    )
    published = artifacts.publish(
        staged,
        bump=decision.bump,
        inputs=[(each.tag, each.commit) for each in inputs],
        source=record.source,
        run=record.id,
        who=who,
        why=why,
        cache=step.parts.to_json(),
    )
    if old is not None and published.tag == old.tag:
        return published, "the same as before"
    return published, f"{decision.bump}: {', '.join(decision.why)}" if old else "the first version"
