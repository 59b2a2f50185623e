"""What a resumed run needs, as a folder: weights, moments, the step and the log so far. No pickle, and no random
state: there is no global stream to keep.

``weights.safetensors`` · ``first.safetensors`` · ``second.safetensors``, by parameter name · ``training.jsonl`` ·
``state.json`` ``{"format": 1, "step", "tokens", "run": digest of parameters, seed and shards}``
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import Corrupt
from workbench.domain.ids import Digest
from workbench.domain.reading import BadInput, Shape, parse_json, record, text, whole
from workbench.stages.train.adamw import AdamW
from workbench.stages.train.flat import FlatParameters

FORMAT = 1


@dataclass(frozen=True)
class Progressed:
    """How far a run has come: ``step`` steps are done."""

    step: int = 0
    tokens: int = 0
    log: tuple[bytes, ...] = ()  # the lines of training.jsonl


def save(folder: Path, flat: FlatParameters, optimizer: AdamW, done: Progressed, run: Digest) -> None:
    folder.mkdir(parents=True)
    vectors = {"weights": flat.weights, "first": optimizer.first, "second": optimizer.second}
    for name, vector in vectors.items():
        save_file(flat.split(vector), folder / f"{name}.safetensors")
    (folder / "training.jsonl").write_bytes(b"".join(done.log))
    state = {"format": FORMAT, "step": done.step, "tokens": done.tokens, "run": run}
    (folder / "state.json").write_bytes(canonical_lines(state))


_STATE: Shape[dict[str, Any]] = record(dict, format=(FORMAT,), step=whole(), tokens=whole(), run=text())


def load(folder: Path, flat: FlatParameters, optimizer: AdamW, run: Digest) -> Progressed:
    """Put weights and moments where they were. Corrupt when the checkpoint is damaged or of another run."""
    try:
        state = _STATE.read(parse_json((folder / "state.json").read_bytes()), "")
        if state["run"] != run:
            raise Corrupt("the checkpoint is of another run", "start the run again without it")
        vectors = {"weights": flat.weights, "first": optimizer.first, "second": optimizer.second}
        for name, vector in vectors.items():
            flat.join(load_file(folder / f"{name}.safetensors"), vector)
        log = (folder / "training.jsonl").read_bytes().splitlines(keepends=True)
        return Progressed(state["step"], state["tokens"], tuple(log))
    except (OSError, ValueError, KeyError, BadInput, SafetensorError) as error:
        raise Corrupt(f"the checkpoint cannot be read: {error!r}", "start the run again without it") from error
