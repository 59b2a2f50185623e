"""S9 serve: a release is opened as its users open it, answers, and answers the same again from its records."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from workbench.domain.canonical import digest_of
from workbench.domain.errors import NotFound, StageFailed
from workbench.domain.generation import Generation, Prompt, Sampling
from workbench.domain.stage import StageResult
from workbench.ports.inference import LoadedModel
from workbench.ports.work import StageContext


def run(context: StageContext) -> StageResult:
    """StageFailed unless streaming, the answer and its replay (after loading the file once more) are equal."""
    params = context.params
    path = model_file(context.inputs["release"], params["quantisation"])
    prompts = {
        "completion": Prompt(params["prompt"]),
        "fim_psm": Prompt(params["prefix"], params["suffix"], "psm"),
        "fim_spm": Prompt(params["prefix"], params["suffix"], "spm"),
    }
    sampling = Sampling(temperature=float(params["temperature"]), seed=context.seed, max_tokens=params["max_tokens"])
    with closing(context.models.load(path, threads=context.workers)) as model:
        records = {name: _answer(model, name, prompt, sampling) for name, prompt in prompts.items()}
    with closing(context.models.load(path, threads=context.workers)) as model:
        for done, name in enumerate(reversed(records), 1):
            _repeat(model, name, records[name])
            context.progress(done, len(records), "replays")
    for name, record in records.items():
        context.say(f"{name}: {record.text!r} ({record.finish})")
    return StageResult(
        counts={
            "generations": len(records),
            "replayed": len(records),
            "tokens": sum(len(record.tokens) for record in records.values()),
        },
        metrics={
            "model_sha256": next(iter(records.values())).model_sha256,
            **{f"{name}_sha256": digest_of([record.text, *record.tokens]) for name, record in records.items()},
        },
    )


def model_file(release: Path, quantisation: str) -> Path:
    """The file of a release to open. NotFound names those that there are."""
    found = sorted(release.glob("*.gguf"))
    for path in found:
        if path.name.endswith(f"-{quantisation}.gguf"):
            return path
    raise NotFound(
        f"the release has no {quantisation} file",
        f"it has {', '.join(path.name for path in found) or 'no model at all'}",
    )


def _answer(model: LoadedModel, name: str, prompt: Prompt, sampling: Sampling) -> Generation:
    streamed: list[str] = []
    record = model.generate(prompt, sampling, streamed.append)
    if "".join(streamed) != record.text:
        raise StageFailed(f"{name}: the streamed text is not the answer's", "this is a bug of workbench: report it")
    return record


def _repeat(model: LoadedModel, name: str, record: Generation) -> None:
    """From the record as it is written and read again, not from the value in memory."""
    stored = Generation.from_json(json.loads(json.dumps(record.to_json())))
    again = model.replay(stored)
    if again != stored:
        raise StageFailed(
            f"{name} cannot be repeated: {again.text[:60]!r} instead of {stored.text[:60]!r}",
            "the engine is not deterministic on this machine: compare its build with the one that passed",
        )
