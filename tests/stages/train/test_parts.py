"""The parts of a step, each against what it should be: order, schedule, sums over ranks, optimizer, flat parameters."""

from __future__ import annotations

import math
import queue
import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.domain.errors import UserError
from workbench.stages.train.adamw import AdamW
from workbench.stages.train.flat import FlatParameters, norm
from workbench.stages.train.order import RowOrder
from workbench.stages.train.params import TrainParams
from workbench.stages.train.reduction import Alone, PairwiseSum, reduce, share
from workbench.stages.train.schedule import learning_rate
from workbench.stages.train.spec import SPEC

WAIT_S = 30.0
GOLDEN_ORDER = [6, 5, 1, 3, 0, 8, 7, 9, 2, 4, 1, 4, 3, 8, 5, 6, 7, 0, 2, 9]


def params(**changes: Any) -> TrainParams:
    return TrainParams.model_validate(SPEC.resolve(0, changes))


# --- order


@given(rows=st.integers(1, 60), seed=st.integers(0, 2**63 - 1), epochs=st.integers(1, 4))
def test_every_epoch_takes_each_row_once_in_an_order_of_its_own(rows: int, seed: int, epochs: int) -> None:
    order = RowOrder(rows, seed)
    taken = order.batch(0, rows * epochs)
    for epoch in range(epochs):
        assert sorted(taken[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


@given(rows=st.integers(1, 60), seed=st.integers(0, 99), at=st.lists(st.integers(0, 500), max_size=20))
def test_a_place_in_the_order_does_not_depend_on_what_was_asked_before(rows: int, seed: int, at: list[int]) -> None:
    order = RowOrder(rows, seed)
    assert [order.at(position) for position in at] == [RowOrder(rows, seed).at(position) for position in at]


def test_the_order_of_a_seed_never_changes() -> None:
    """Golden: another order is another model for everyone who trains again."""
    assert RowOrder(10, 7).batch(0, 20) == GOLDEN_ORDER
    assert RowOrder(10, 8).batch(0, 20) != GOLDEN_ORDER


# --- schedule


@given(
    steps=st.integers(1, 400),
    schedule=st.sampled_from(["cosine", "linear", "wsd"]),
    warmup=st.floats(0, 1),
    decay=st.floats(0, 1),
    final=st.just(0.0) | st.floats(1e-6, 1),
)
def test_the_rate_rises_to_the_peak_and_never_leaves_its_bounds(
    steps: int, schedule: str, warmup: float, decay: float, final: float
) -> None:
    p = params(steps=steps, schedule=schedule, warmup_share=warmup, decay_share=decay, final_lr_share=final)
    rates = [learning_rate(step, p) for step in range(steps)]
    assert all(0 <= rate <= p.learning_rate * (1 + 1e-12) for rate in rates)
    assert all(rates) or not final
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert all(a >= b - 1e-15 for a, b in zip(rates[top:], rates[top + 1 :], strict=False))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_the_last_step_has_the_final_rate(schedule: str) -> None:
    p = params(steps=100, schedule=schedule, warmup_share=0.1, final_lr_share=0.02)
    assert learning_rate(9, p) == pytest.approx(p.learning_rate)
    assert learning_rate(99, p) == pytest.approx(p.learning_rate * 0.02)
    if schedule == "wsd":
        assert learning_rate(79, p) == p.learning_rate


# --- sums over ranks


class Wire:
    """Ranks that are threads: what one gives, the other takes."""

    def __init__(self, ranks: int) -> None:
        self.boxes = {(a, b): queue.Queue[torch.Tensor]() for a in range(ranks) for b in range(ranks)}


class Threaded:
    def __init__(self, wire: Wire, rank: int, ranks: int) -> None:
        self._wire, self.rank, self.ranks = wire, rank, ranks

    def exchange(self, mine: torch.Tensor, other: int) -> torch.Tensor:
        self._wire.boxes[self.rank, other].put(mine.clone())
        return self._wire.boxes[other, self.rank].get(timeout=WAIT_S)


def summed(leaves: list[torch.Tensor], ranks: int) -> list[torch.Tensor]:
    wire, found = Wire(ranks), dict[int, torch.Tensor]()

    def work(rank: int) -> None:
        link = Threaded(wire, rank, ranks)
        mine = PairwiseSum()
        for number in share(len(leaves), link):
            mine.add(leaves[number].clone())
        found[rank] = reduce(mine.total(), link)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    return [found[rank] for rank in range(ranks)]


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), height=st.integers(3, 5))
def test_the_sum_has_the_same_bits_however_many_ranks_share_the_work(seed: int, height: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    leaves = [torch.randn(50, generator=generator) * 10 ** (number % 7) for number in range(2**height)]
    (alone,) = summed(leaves, 1)
    for ranks in (2, 4, 8):
        assert all(torch.equal(alone, each) for each in summed(leaves, ranks))
    assert torch.allclose(alone.double(), torch.stack(leaves).double().sum(dim=0), rtol=1e-4, atol=1e-1)


def test_the_tree_is_the_one_that_is_drawn() -> None:
    a, b, c, d = (torch.tensor([value], dtype=torch.float32) for value in (1e8, 1.0, -1e8, 1.0))
    total = PairwiseSum()
    for leaf in (a, b, c, d):
        total.add(leaf)
    assert torch.equal(total.total(), (a + b) + (c + d))
    assert not torch.equal(total.total(), a + c + b + d)


def test_leaves_that_make_no_whole_tree_are_our_bug() -> None:
    total = PairwiseSum()
    for _ in range(3):
        total.add(torch.ones(1))
    with pytest.raises(AssertionError, match="power of two"):
        total.total()
    with pytest.raises(AssertionError):
        Alone().exchange(torch.ones(1), 1)


# --- optimizer and flat parameters


def model() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.LayerNorm(7), torch.nn.Linear(7, 2))


def test_the_optimizer_is_torch_s_adamw() -> None:
    ours, theirs = model(), model()
    flat = FlatParameters(ours)
    mine = AdamW(flat.weights, flat.decayed, beta1=0.9, beta2=0.98, weight_decay=0.1)
    matrices = [p for p in theirs.parameters() if p.dim() > 1]
    vectors = [p for p in theirs.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    other = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-8)
    for number in range(1, 20):
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(number))
        flat.gradient.zero_()
        ours(x).square().sum().backward()
        mine.step(flat.gradient, number=number, learning_rate=0.01)
        other.zero_grad()
        theirs(x).square().sum().backward()
        other.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_flat_vector_is_what_the_model_sees() -> None:
    module = model()
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    flat = FlatParameters(module)
    parts = flat.split(flat.weights)
    assert all(torch.equal(parts[name], before[name]) for name in before)
    flat.weights.mul_(2)
    assert all(torch.equal(value, before[name] * 2) for name, value in module.named_parameters())
    flat.join(parts, flat.weights)
    assert all(torch.equal(value, before[name]) for name, value in module.named_parameters())


def test_parts_of_another_model_are_not_taken() -> None:
    flat = FlatParameters(model())
    parts = flat.split(flat.weights)
    with pytest.raises(KeyError):
        flat.join({}, flat.weights)
    with pytest.raises(ValueError, match="has shape"):
        flat.join({**parts, "0.weight": torch.zeros(7, 4)}, flat.weights)


@given(size=st.integers(0, 20_000), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_the_norm_is_the_norm_and_no_thread_count_changes_it(size: int, seed: int) -> None:
    vector = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    found = norm(vector)
    assert math.isclose(found, float(vector.double().norm()), rel_tol=1e-9, abs_tol=1e-12)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert norm(vector) == found
    finally:
        torch.set_num_threads(before)


# --- parameters

WRONG = {
    "not a power of two": ({"batch_rows": 6, "micro_rows": 2}, "power of two"),
    "not whole micro-batches": ({"batch_rows": 7, "micro_rows": 2}, "power of two"),
    "odd heads": ({"hidden_size": 30, "num_heads": 2}, "even number"),
    "heads that cannot share": ({"num_heads": 4, "num_kv_heads": 3}, "multiple of num_kv_heads"),
    "no steps": ({"steps": 0}, "steps"),
    "a word": ({"steps": "many"}, "steps"),
    "misspelt": ({"learning_rat": 1e-3}, "did you mean learning_rate"),
    "no such schedule": ({"schedule": "cosin"}, "did you mean cosine"),
    "no such device": ({"device": "tpu"}, "device"),
    "not a number": ({"learning_rate": float("nan")}, "learning_rate"),
}


@pytest.mark.parametrize(("wrong", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_parameter_is_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        SPEC.resolve(1, wrong)


def test_checkpoints_come_at_each_quarter_unless_they_are_given() -> None:
    assert SPEC.resolve(1, {"steps": 100})["checkpoint_every"] == 25
    assert SPEC.resolve(1, {"steps": 2})["checkpoint_every"] == 1
    assert SPEC.resolve(1, {"steps": 100, "checkpoint_every": 7})["checkpoint_every"] == 7
