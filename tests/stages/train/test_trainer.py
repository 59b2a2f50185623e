"""One step: micro-batches are one batch, and numbers that are none stop it before the weights change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workbench.domain.errors import StageFailed
from workbench.stages.train.params import TrainParams
from workbench.stages.train.policy import deterministic
from workbench.stages.train.reduction import Alone
from workbench.stages.train.spec import SPEC
from workbench.stages.train.trainer import Trainer
from workbench.tokens.shards import ShardIndex, ShardWriter, SplitReader


def params(**changes: Any) -> TrainParams:
    small = {
        "hidden_size": 16, "intermediate_size": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1,
        "batch_rows": 8, "micro_rows": 1, "learning_rate": 1e-2,
    }  # fmt: skip
    return TrainParams.model_validate(SPEC.resolve(0, {**small, **changes}))


def trainer(shards: Path, given: TrainParams, seed: int = 0) -> Trainer:
    return Trainer(given, SplitReader(shards, "train"), seed=seed, link=Alone())


def steps(made: Trainer, number: int) -> list[Any]:
    with deterministic(made.params, 1):
        return [made.step(step) for step in range(number)]


@pytest.mark.parametrize("micro_rows", [2, 4, 8])
def test_micro_batches_are_one_batch_but_for_rounding(shards: Path, micro_rows: int) -> None:
    single, grouped = trainer(shards, params()), trainer(shards, params(micro_rows=micro_rows))
    first, second = steps(single, 2), steps(grouped, 2)
    for a, b in zip(first, second, strict=True):
        assert a.tokens == b.tokens
        assert a.loss == pytest.approx(b.loss, rel=1e-5)
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-4)
    assert torch.allclose(single.flat.weights, grouped.flat.weights, atol=1e-4)


def test_a_step_is_what_a_plain_torch_loop_does(shards: Path) -> None:
    """The gradient of the mean loss over the batch, as autograd gives it in one go."""
    from torch.nn import functional

    given = params(clip_norm=1000.0)
    made = trainer(shards, given)
    reader = SplitReader(shards, "train")
    rows = made._order.batch(0, given.batch_rows)
    x, y = (torch.from_numpy(part) for part in reader.read(rows))
    made.flat.gradient.zero_()
    logits = made.decoder(x)
    loss = functional.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=reader.index.pad)
    loss.backward()  # type: ignore[no-untyped-call]
    expected = float(made.flat.gradient.double().norm())
    (result,) = steps(made, 1)
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    assert result.grad_norm == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_clipped_to_the_length_that_is_allowed(shards: Path) -> None:
    loose, tight = trainer(shards, params(clip_norm=1e6)), trainer(shards, params(clip_norm=1e-3))
    (a,), (b,) = steps(loose, 1), steps(tight, 1)
    assert a.grad_norm == b.grad_norm > 1e-3  # told before clipping
    ratio = tight.optimizer.first.norm() / loose.optimizer.first.norm()
    assert float(ratio) == pytest.approx(1e-3 / a.grad_norm, rel=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_none_stops_the_step_and_leaves_the_weights_as_they_were(shards: Path, bad: float) -> None:
    made = trainer(shards, params())
    steps(made, 1)
    made.flat.weights[5] = bad
    before = made.flat.weights.clone()
    with pytest.raises(StageFailed, match=r"training diverged at step 1: loss (.|\n)*learning_rate"):
        with deterministic(made.params, 1):
            made.step(1)
    assert torch.equal(made.flat.weights.nan_to_num(), before.nan_to_num())


def test_a_step_with_nothing_to_predict_says_so(tmp_path: Path) -> None:
    index = ShardIndex(64, 16, 3, 1, 2, "a" * 64, {})
    writer = ShardWriter(tmp_path, "train", index, rows_per_file=8)
    writer.add(np.full(16 * 8, 3), documents=1, size_bytes=1)
    ShardIndex(64, 16, 3, 1, 2, "a" * 64, {"train": writer.finish()}).save(tmp_path)
    made = trainer(tmp_path, params())
    with pytest.raises(StageFailed, match=r"step 0 has nothing to predict(.|\n)*give more data"):
        steps(made, 1)


def test_validation_changes_nothing(shards: Path) -> None:
    watched, alone = trainer(shards, params()), trainer(shards, params())
    with deterministic(watched.params, 1):
        for step in range(2):
            assert watched.validate(SplitReader(shards, "validation"), range(4)) > 0
            watched.step(step)
    steps(alone, 2)
    assert torch.equal(watched.flat.weights, alone.flat.weights)


def test_bfloat16_computes_otherwise_and_keeps_its_weights_in_float32(shards: Path) -> None:
    exact, short = trainer(shards, params()), trainer(shards, params(precision="bfloat16"))
    (a,), (b,) = steps(exact, 1), steps(short, 1)
    assert a.loss != b.loss
    assert a.loss == pytest.approx(b.loss, rel=0.02)
    assert short.flat.weights.dtype == short.optimizer.first.dtype == torch.float32
