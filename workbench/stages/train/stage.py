"""The run: prepare or resume, step, validate, hand over checkpoints, write the model."""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.decoder import weights
from workbench.domain.canonical import canonical_json, canonical_lines, digest_of
from workbench.domain.errors import UserError
from workbench.domain.ids import Digest
from workbench.domain.stage import StageResult
from workbench.ports.work import StageContext
from workbench.stages.train import checkpoint, policy
from workbench.stages.train.checkpoint import Progressed
from workbench.stages.train.params import TrainParams
from workbench.stages.train.reduction import Alone, Link
from workbench.stages.train.trainer import StepResult, Trainer
from workbench.tokens.shards import SplitReader

FORMAT = 1


def run(context: StageContext) -> StageResult:
    """Leaves ``model.safetensors``, ``config.json``, ``training.jsonl`` and ``training.json``."""
    params = TrainParams.model_validate(context.params)
    policy.check_device(params.device)
    _check_held_out(context.inputs["shards"], params)
    return train(context, params, Alone())


def _check_held_out(shards: Path, params: TrainParams) -> None:
    """Without held-out text a model can be neither watched nor evaluated nor packaged: said before the work."""
    if params.validation_rows and not SplitReader(shards, "validation").rows:
        raise UserError(
            "the validation split is empty: a source this small left no document to it",
            "raise [stage.dataset] validation, or give more sources (train without it: validation_rows = 0)",
        )


def train(context: StageContext, params: TrainParams, link: Link) -> StageResult:
    """One rank's part of the run; rank 0 alone writes and reports."""
    shards = context.inputs["shards"]
    with policy.deterministic(params, context.workers):
        return _Run(context, params, link, shards).whole()


class _Run:
    def __init__(self, context: StageContext, params: TrainParams, link: Link, shards: Path) -> None:
        self._context, self._params, self._leads = context, params, link.rank == 0
        self._reader = SplitReader(shards, "train")
        self._validation = SplitReader(shards, "validation")
        self._trainer = Trainer(params, self._reader, seed=context.seed, link=link)
        self._digest = _digest(params, context.seed, shards)
        self._started_s = time.monotonic()
        self._tokens_before = 0

    def whole(self) -> StageResult:
        done = self._resume()
        self._tokens_before = done.tokens
        for step in range(done.step, self._params.steps):
            result = self._trainer.step(step)
            done = self._logged(done, step, result)
            self._report(done, result)
            last = done.step == self._params.steps
            if self._leads and done.step % self._params.checkpoint_every == 0 and not last:
                self._hand_over(done)
        return self._finish(done) if self._leads else StageResult()

    def _resume(self) -> Progressed:
        folder = self._context.checkpoint
        if folder is None:
            config = self._trainer.decoder.config
            self._say(
                f"{config.num_parameters / 1e6:.2f} M parameters, {self._reader.split.tokens} tokens in the shards, "
                f"{self._params.steps * self._params.batch_rows * config.max_position_embeddings} to train on"
            )
            return Progressed()
        done = checkpoint.load(folder, self._trainer.flat, self._trainer.optimizer, self._digest)
        self._say(f"resumed after step {done.step} of {self._params.steps}")
        return done

    def _logged(self, done: Progressed, step: int, result: StepResult) -> Progressed:
        tokens = done.tokens + result.tokens
        line: dict[str, Any] = {
            "step": step,
            "loss": result.loss,
            "grad_norm": result.grad_norm,
            "lr": result.learning_rate,
            "tokens": tokens,
        }
        if self._leads and self._is_validated(step):
            line["validation_bits_per_byte"] = self._bits_per_byte()
        return replace(done, step=step + 1, tokens=tokens, log=(*done.log, canonical_json(line) + b"\n"))

    def _is_validated(self, step: int) -> bool:
        rows = min(self._params.validation_rows, self._validation.rows)
        return rows > 0 and ((step + 1) % self._params.validate_every == 0 or step + 1 == self._params.steps)

    def _bits_per_byte(self) -> float:
        """Over the first rows of the validation split, with the split's mean of bytes per token: for watching; the
        exact figure is the evaluation's."""
        rows = range(min(self._params.validation_rows, self._validation.rows))
        loss = self._trainer.validate(self._validation, rows)
        split = self._validation.split
        return loss / math.log(2) * split.predicted / max(1, split.bytes)

    def _report(self, done: Progressed, result: StepResult) -> None:
        if not self._leads:
            return
        seconds = max(time.monotonic() - self._started_s, 1e-9)
        split = self._reader.split
        self._context.progress(
            done.step,
            self._params.steps,
            "steps",
            tokens_per_s=(done.tokens - self._tokens_before) / seconds,
            loss=result.loss,
            bits_per_byte=result.loss / math.log(2) * split.predicted / max(1, split.bytes),
        )

    def _hand_over(self, done: Progressed) -> None:
        folder = self._context.scratch / f"checkpoint-{done.step:09d}"
        shutil.rmtree(folder, ignore_errors=True)
        checkpoint.save(folder, self._trainer.flat, self._trainer.optimizer, done, self._digest)
        self._context.save_checkpoint(folder)
        shutil.rmtree(folder)

    def _finish(self, done: Progressed) -> StageResult:
        output, params, config = self._context.output, self._params, self._trainer.decoder.config
        weights.save(self._trainer.decoder, output)
        (output / "training.jsonl").write_bytes(b"".join(done.log))
        body = {
            "format": FORMAT,
            "precision": policy.record(params, self._context.workers),
            "parameters": config.num_parameters,
            "steps": done.step,
            "tokens": done.tokens,
            "tokenizer": self._reader.index.tokenizer,
        }
        (output / "training.json").write_bytes(canonical_lines(body))
        return StageResult(
            counts={"parameters": config.num_parameters, "steps": done.step, "tokens": done.tokens},
            metrics=_last_figures(done),
        )

    def _say(self, text: str) -> None:
        if self._leads:
            self._context.say(text)


def _last_figures(done: Progressed) -> dict[str, float]:
    last = json.loads(done.log[-1])
    return {name: last[name] for name in ("loss", "validation_bits_per_byte") if name in last}


def _digest(params: TrainParams, seed: int, shards: Path) -> Digest:
    index = (shards / "index.json").read_text()
    return digest_of({"params": params.model_dump(mode="json"), "seed": seed, "shards": index})
