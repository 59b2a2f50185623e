"""What S8 package reads, makes and is told. Importing it is cheap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.domain.errors import UserError
from workbench.domain.refs import Kind
from workbench.domain.stage import Params, StageSpec

QUANTISATIONS = ("Q8_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q4_0")
DEFAULTS: Params = {
    "quantisations": ["Q8_0", "Q4_K_M"],
    "held_out_texts": 300,  # texts whose token ids are compared with SentencePiece's
    "parity_windows": 4,  # stretches of held-out text whose logits are compared with torch's
    "divergence_windows": 16,  # stretches over which each file is compared with the F32 weights
    "window_tokens": 256,
}
RESIZE = "make hidden_size and intermediate_size multiples of 256, or leave a quantisation out of package's"


def resolve(dial: int, given: Params) -> dict[str, Any]:
    """All parameters; the dial changes none of them."""
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise UserError(
            f"package has no parameter {', '.join(unknown)}", f"its parameters are {', '.join(sorted(DEFAULTS))}"
        )
    params = {**DEFAULTS, **given}
    kinds = params["quantisations"]
    if not isinstance(kinds, list) or not kinds or [k for k in kinds if k not in QUANTISATIONS]:
        raise UserError(f"quantisations {kinds!r} cannot be made", f"give a list of {', '.join(QUANTISATIONS)}")
    for name in ("held_out_texts", "parity_windows", "divergence_windows", "window_tokens"):
        value = params[name]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 10_000:
            raise UserError(f"package's {name} is {value!r}", "give a whole number from 1 to 10000")
    if params["window_tokens"] < 8:
        raise UserError(f"package's window_tokens is {params['window_tokens']}", "give at least 8")
    return {**params, "quantisations": sorted(set(kinds), key=QUANTISATIONS.index)}


def misfit(rows: Mapping[str, int], kinds: Sequence[str]) -> str:
    """The sizes whose rows are not whole blocks of every kind, in words; empty when all fit. Q8_0 has blocks of 32,
    the others 256 (Q4_0 too: its embeddings become Q6_K)."""
    block = 32 if set(kinds) <= {"Q8_0"} else 256
    wrong = [f"{name} {size}" for name, size in rows.items() if size % block]
    return f"{', '.join(wrong)}: no multiple of {block}, the block of {', '.join(kinds)}" if wrong else ""


def fits(params: Mapping[str, Params]) -> None:
    if "train" not in params:
        return
    rows = {name: params["train"][name] for name in ("hidden_size", "intermediate_size")}
    if wrong := misfit(rows, params["package"]["quantisations"]):
        raise UserError(f"train's {wrong}", RESIZE)


SPEC = StageSpec(
    name="package",
    reads=(Kind.MODEL, Kind.TOKENIZER, Kind.METRICS, Kind.DATASET),
    makes=Kind.RELEASE,
    resolve=resolve,
    libraries=("gguf", "llama-cpp-python", "numpy", "safetensors", "sentencepiece", "torch"),
    llama=True,
    major_params=("quantisations",),
    carries=(Kind.MODEL, Kind.TOKENIZER),
    adapters=("inference",),
    fits=fits,
)
