"""Small shards with a pattern that can be learnt, and a model that learns it in a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.app.stage_host import run_in_process
from workbench.domain.stage import StageResult
from workbench.stages.train.spec import SPEC
from workbench.stages.train.stage import run
from workbench.tokens.shards import ShardIndex, ShardWriter

VOCABULARY, CONTEXT, PAD = 64, 16, 3
SMALL: Mapping[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1,
    "steps": 6, "batch_rows": 4, "micro_rows": 1, "learning_rate": 1e-2,
    "checkpoint_every": 1, "validate_every": 3, "validation_rows": 4,
}  # fmt: skip

Train = Callable[..., StageResult]


def write_shards(folder: Path, *, rows: int = 24, validation_rows: int = 5, seed: int = 0) -> Path:
    """Counting up by ones from a random start: the next token is the last one plus one."""
    folder.mkdir(parents=True, exist_ok=True)
    index = ShardIndex(VOCABULARY, CONTEXT, PAD, 1, 2, "a" * 64, {})
    pick = np.random.default_rng(seed)
    splits = {}
    for split, count in (("train", rows), ("validation", validation_rows)):
        writer = ShardWriter(folder, split, index, rows_per_file=10)
        for start in pick.integers(8, 32, size=count):
            writer.add(np.arange(start, start + CONTEXT) % VOCABULARY, documents=1, size_bytes=3 * CONTEXT)
        splits[split] = writer.finish()
    ShardIndex(VOCABULARY, CONTEXT, PAD, 1, 2, "a" * 64, splits).save(folder)
    return folder


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="session")
def other_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="session")
def shards_without_validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("none"), validation_rows=0)


@pytest.fixture
def train(shards: Path) -> Train:
    """``train(output, …)`` runs the stage in this process; parameters differ from ``SMALL`` as given."""

    def start(output: Path, *, inputs: Path = shards, seed: int = 0, **options: Any) -> StageResult:
        params = {**SMALL, **options.pop("params", {})}
        options.setdefault("workers", 1)  # threads: two of them wait for each other on a busy machine
        return run_in_process(
            SPEC, run, inputs={"shards": inputs}, output=output, params=params, dial=0, seed=seed, **options
        )

    return start
