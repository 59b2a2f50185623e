"""A training run: what it leaves, and that it ends in the same bytes wherever it was cut off."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.decoder import weights
from workbench.domain.errors import Corrupt, UserError
from workbench.domain.events import Progress
from workbench.stages.evaluate.report import read_curve

FILES = ["config.json", "model.safetensors", "training.json", "training.jsonl"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def whole(train: Any, tmp_path: Path) -> tuple[dict[str, bytes], list[Path]]:
    """An undisturbed run: what it left, and every checkpoint on its way."""
    saved: list[Path] = []

    def keep(folder: Path) -> None:
        saved.append(tmp_path / "checkpoints" / folder.name)
        shutil.copytree(folder, saved[-1])

    train(tmp_path / "whole", on_checkpoint=keep)
    return files(tmp_path / "whole"), saved


def test_it_leaves_a_model_that_can_be_opened_and_a_line_for_every_step(train: Any, tmp_path: Path) -> None:
    result = train(tmp_path / "out")
    assert sorted(files(tmp_path / "out")) == FILES
    decoder = weights.load(tmp_path / "out")
    assert result.counts == {"parameters": decoder.config.num_parameters, "steps": 6, "tokens": result.counts["tokens"]}
    lines = [json.loads(line) for line in (tmp_path / "out" / "training.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(6))
    assert [line["step"] for line in lines if "validation_bits_per_byte" in line] == [2, 5]
    assert lines[-1]["tokens"] == result.counts["tokens"]
    assert result.metrics["loss"] == lines[-1]["loss"]
    curve = read_curve(tmp_path / "out")  # what the evaluation's report draws of it
    assert [step for step, _ in curve.train] == list(range(6))
    assert [step for step, _ in curve.validation] == [2, 5]


def test_who_watches_sees_steps_loss_and_speed(train: Any, tmp_path: Path) -> None:
    heard: list[Any] = []
    train(tmp_path / "out", on_event=heard.append)
    last = [event for event in heard if isinstance(event, Progress)][-1]
    assert (last.total, last.unit) == (6, "steps")
    assert set(last.rates) >= {"tokens_per_s", "loss", "bits_per_byte"}
    assert last.rates["tokens_per_s"] > 0


def test_a_pattern_is_learnt(train: Any, tmp_path: Path) -> None:
    train(tmp_path / "out", params={"steps": 60, "checkpoint_every": 1000})
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "training.jsonl").read_text().splitlines()]
    assert losses[0] > 3.5  # about the logarithm of the vocabulary
    assert losses[-1] < losses[0] / 2


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(train: Any, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tmp_path / name, seed=seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")["model.safetensors"] != files(tmp_path / "c")["model.safetensors"]


def test_resumed_from_any_checkpoint_it_ends_in_the_same_bytes(
    train: Any, tmp_path: Path, whole: tuple[dict[str, bytes], list[Path]]
) -> None:
    expected, checkpoints = whole
    assert len(checkpoints) == 5
    for checkpoint in checkpoints:
        train(tmp_path / f"from-{checkpoint.name}", checkpoint=checkpoint)
        assert files(tmp_path / f"from-{checkpoint.name}") == expected


def test_cut_off_and_resumed_again_and_again_it_ends_in_the_same_bytes(
    train: Any, tmp_path: Path, whole: tuple[dict[str, bytes], list[Path]]
) -> None:
    """Each attempt is stopped as soon as it has handed over one checkpoint."""

    class CutOff(Exception):
        pass

    last: Path | None = None
    for attempt in range(5):
        kept = tmp_path / "kept" / str(attempt)

        def stop(folder: Path, kept: Path = kept) -> None:
            shutil.copytree(folder, kept)
            raise CutOff

        with pytest.raises(CutOff):
            train(tmp_path / f"attempt-{attempt}", checkpoint=last, on_checkpoint=stop)
        assert not list((tmp_path / f"attempt-{attempt}").iterdir())
        last = kept
    train(tmp_path / "end", checkpoint=last)
    assert files(tmp_path / "end") == whole[0]


def _shorten(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-5])


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _of_another_shape(folder: Path) -> None:
    """One matrix has a row too few."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "weights.safetensors")
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name][:-1].contiguous()}, folder / "weights.safetensors")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "weights cut off": _shorten("weights.safetensors"),
    "moments cut off": _shorten("second.safetensors"),
    "no moments": _remove("first.safetensors"),
    "no log": _remove("training.jsonl"),
    "no state": _remove("state.json"),
    "state is no JSON": lambda folder: (folder / "state.json").write_text("{"),
    "another format": lambda folder: (folder / "state.json").write_text('{"format": 2}'),
    "another shape": _of_another_shape,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_refused(
    train: Any, tmp_path: Path, whole: tuple[dict[str, bytes], list[Path]], name: str
) -> None:
    DAMAGE[name](whole[1][1])
    with pytest.raises(Corrupt, match="checkpoint") as caught:
        train(tmp_path / "out", checkpoint=whole[1][1])
    assert "again without it" in caught.value.hint


@pytest.mark.parametrize("change", [{"params": {"learning_rate": 1e-3}}, {"params": {"steps": 7}}, {"seed": 1}])
def test_a_checkpoint_of_another_run_is_refused(
    train: Any, tmp_path: Path, whole: tuple[dict[str, bytes], list[Path]], change: dict[str, Any]
) -> None:
    with pytest.raises(Corrupt, match="another run"):
        train(tmp_path / "out", checkpoint=whole[1][0], **change)


def test_a_checkpoint_of_other_shards_is_refused(
    train: Any, tmp_path: Path, whole: tuple[dict[str, bytes], list[Path]], other_shards: Path
) -> None:
    with pytest.raises(Corrupt, match="another run"):
        train(tmp_path / "out", checkpoint=whole[1][0], inputs=other_shards)


def test_without_held_out_text_it_is_refused_before_the_work(
    train: Any, tmp_path: Path, shards_without_validation: Path
) -> None:
    with pytest.raises(UserError, match=r"validation split is empty(.|\n)*\[stage\.dataset\] validation"):
        train(tmp_path / "out", inputs=shards_without_validation)
    train(tmp_path / "anyway", inputs=shards_without_validation, params={"validation_rows": 0})
    assert sorted(files(tmp_path / "anyway")) == FILES


def test_the_record_names_the_precision_and_no_time_or_place(train: Any, tmp_path: Path) -> None:
    train(tmp_path / "out", workers=2)
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert sorted(record) == ["format", "parameters", "precision", "steps", "tokenizer", "tokens"]
    assert record["precision"]["compute"] == "float32"
    assert record["precision"]["mode"] == "repro"
    assert record["precision"]["threads"] == 2
    assert record["tokenizer"] == "a" * 64


def test_what_torch_was_set_to_before_is_what_it_is_set_to_afterwards(train: Any, tmp_path: Path) -> None:
    import torch

    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    train(tmp_path / "out", params={"steps": 1, "checkpoint_every": 1, "validate_every": 1}, workers=1)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
