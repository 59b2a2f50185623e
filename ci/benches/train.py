"""Tokens a second and peak memory of our training step beside a plain torch loop of the same model, in turns.

Prints one JSON object; ratios are ours over theirs. Each turn is a process of its own, so that its memory is its own.
The plain loop has no micro-batches, no determinism and no fixed order of sums: torch's AdamW over the whole batch at
once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

AIM_SPEED = 0.9  # what exact resume may cost
AIM_MEMORY = 1.0
WARM_UP = 2  # steps
SEED = 1


def make_shards(folder: Path, *, vocab_size: int, context: int, rows: int) -> None:
    """Token ids as frequent as words are; speed does not depend on what they say."""
    import numpy as np

    from workbench.tokens.shards import ShardIndex, ShardWriter

    folder.mkdir()
    index = ShardIndex(vocab_size, context, 3, "0" * 64, {})
    shares = 1.0 / np.arange(1, vocab_size + 1)
    ids = np.random.default_rng(0).choice(vocab_size, rows * context, p=shares / shares.sum())
    writer = ShardWriter(folder, "train", dtype=index.dtype, context=context, pad=3, rows_per_file=rows)
    writer.add(ids, documents=rows, size_bytes=len(ids) * 3)
    ShardIndex(vocab_size, context, 3, "0" * 64, {"train": writer.finish()}).save(folder)


def ours(shards: Path, params: dict[str, Any]) -> Callable[[int], float]:
    from workbench.stages.train.params import TrainParams
    from workbench.stages.train.reduction import Alone
    from workbench.stages.train.trainer import Trainer
    from workbench.tokens.shards import SplitReader

    trainer = Trainer(TrainParams.model_validate(params), SplitReader(shards, "train"), seed=SEED, link=Alone())
    return lambda number: trainer.step(number).loss


def plain(shards: Path, params: dict[str, Any]) -> Callable[[int], float]:
    """As a tutorial writes it."""
    import torch
    from torch.nn import functional

    from workbench.decoder.model import Decoder
    from workbench.stages.train.params import TrainParams
    from workbench.stages.train.trainer import decoder_config
    from workbench.tokens.shards import SplitReader

    given = TrainParams.model_validate(params)
    reader = SplitReader(shards, "train")
    decoder = Decoder(decoder_config(given, reader.index))
    decoder.initialise(SEED)
    optimizer = torch.optim.AdamW(
        decoder.parameters(), lr=given.learning_rate, betas=(given.beta1, given.beta2), weight_decay=given.weight_decay
    )

    def step(number: int) -> float:
        first = number * given.batch_rows
        x, y = map(torch.from_numpy, reader.read([row % reader.rows for row in range(first, first + given.batch_rows)]))
        logits = decoder(x)
        loss = functional.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=reader.index.pad)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), given.clip_norm)
        optimizer.step()
        return loss.item()

    return step


def child(who: str, shards: Path, params: dict[str, Any], steps: int, threads: int) -> None:
    """One turn: what it does, and what it took, as JSON."""
    import resource

    import torch

    from workbench.stages.train.params import TrainParams
    from workbench.stages.train.policy import deterministic

    torch.set_num_threads(threads)

    def turn() -> dict[str, float]:
        step = {"ours": ours, "plain": plain}[who](shards, params)
        for number in range(WARM_UP):
            loss = step(number)
        started = time.perf_counter()
        for number in range(WARM_UP, WARM_UP + steps):
            loss = step(number)
        seconds = time.perf_counter() - started
        return {"steps_per_s": steps / seconds, "loss": loss}

    if who == "ours":
        with deterministic(TrainParams.model_validate(params), threads):
            found = turn()
    else:
        found = turn()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**found, "peak_mib": peak_mib}))


def measure(dial: int, steps: int, rounds: int, threads: int) -> dict[str, object]:
    from workbench.app.wiring import stage_specs

    specs = {spec.name: spec for spec in stage_specs()}
    params = specs["train"].resolve(dial, {})
    context = specs["shard"].resolve(dial, {})["context"]
    vocab_size = specs["tokenizer"].resolve(dial, {})["vocab_size"]
    found: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as name:
        shards = Path(name) / "shards"
        make_shards(shards, vocab_size=vocab_size, context=context, rows=(steps + WARM_UP) * params["batch_rows"])
        for number in range(rounds):
            for who in sorted(found, reverse=bool(number % 2)):
                ask = {"shards": str(shards), "params": params, "steps": steps, "threads": threads}
                command = [sys.executable, __file__, "--child", who]
                done = subprocess.run(command, input=json.dumps(ask), capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(done.stderr)
                found[who].append(json.loads(done.stdout))
    tokens = params["batch_rows"] * context
    speed = {who: statistics.median(turn["steps_per_s"] for turn in turns) * tokens for who, turns in found.items()}
    memory = {who: statistics.median(turn["peak_mib"] for turn in turns) for who, turns in found.items()}
    return {
        "bench": "train",
        "dial": dial,
        "threads": threads,
        "rounds": rounds,
        "tokens_per_step": tokens,
        "tokens_per_s": {who: round(value) for who, value in speed.items()},
        "peak_mib": {who: round(value) for who, value in memory.items()},
        "loss_last": {who: round(turns[-1]["loss"], 3) for who, turns in found.items()},
        "speed_ratio": round(speed["ours"] / speed["plain"], 3),
        "memory_ratio": round(memory["ours"] / memory["plain"], 3),
        "aim_speed_ratio": AIM_SPEED,
        "aim_memory_ratio": AIM_MEMORY,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--dial", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--child", choices=("ours", "plain"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        ask = json.load(sys.stdin)
        child(given.child, Path(ask["shards"]), ask["params"], ask["steps"], ask["threads"])
        return
    print(json.dumps(measure(given.dial, given.steps, given.rounds, given.threads)))


if __name__ == "__main__":
    main()
